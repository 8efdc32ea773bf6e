/*
 * The payload of the seccomp tests, one static file:
 *
 *   probe wait                 does nothing until it is killed
 *   probe filter PID           prints the filter that process PID has loaded, as raw instructions
 *   probe calls [FILTER]       loads the filter in that file, if any; then makes every system call and prints a
 *                              line for each: interface, number, argument, outcome
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define LAST_NUMBER 600
#define X32_BIT 0x40000000u
#define NOT_RETURNED INT64_MAX

static void fail(const char *what) {
    perror(what);
    exit(99);
}

static void print_filter(pid_t pid) {
    static struct sock_filter filter[4096];
    if (ptrace(PTRACE_ATTACH, pid, 0, 0) < 0) fail("PTRACE_ATTACH");
    if (waitpid(pid, NULL, __WALL) < 0) fail("waitpid");
    long count = ptrace(PTRACE_SECCOMP_GET_FILTER, pid, 0, filter);
    if (count < 0) fail("PTRACE_SECCOMP_GET_FILTER");
    if (ptrace(PTRACE_SECCOMP_GET_FILTER, pid, 1, NULL) >= 0) {
        fputs("more than one filter\n", stderr);
        exit(99);
    }
    if (fwrite(filter, sizeof filter[0], count, stdout) != (size_t)count) fail("fwrite");
    ptrace(PTRACE_DETACH, pid, 0, 0);
}

static void load_filter(const char *path) {
    static struct sock_filter filter[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) fail(path);
    ssize_t length = read(fd, filter, sizeof filter);
    if (length <= 0) fail(path);
    close(fd);
    struct sock_fprog program = {length / sizeof filter[0], filter};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0) fail("seccomp");
}

static inline __attribute__((always_inline)) int64_t call64(uint64_t number, uint64_t argument) {
    int64_t result;
    register uint64_t r10 __asm__("r10") = argument;
    register uint64_t r8 __asm__("r8") = argument;
    register uint64_t r9 __asm__("r9") = argument;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(argument), "S"(argument), "d"(argument), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

/* The i386 entry can be used by 64-bit code too; the sixth argument is in ebp. */
static inline __attribute__((always_inline)) int64_t call32(uint32_t number, uint32_t argument) {
    int32_t result;
    __asm__ volatile("push %%rbp\n\tmov %%ecx, %%ebp\n\tint $0x80\n\tpop %%rbp"
                     : "=a"(result)
                     : "a"(number), "b"(argument), "c"(argument), "d"(argument), "S"(argument), "D"(argument)
                     : "r8", "r9", "r10", "r11", "memory");
    return result;
}

/* Calls whose effect would reach beyond the process or has no defined outcome. */
static int spared(int interface, unsigned number) {
    if (interface == 386) return number == 36 /* sync */ || number == 72 /* sigsuspend, which can block all signals for ever */ || number == 119 /* sigreturn */ || number == 173 /* rt_sigreturn */;
    return number == 162 /* sync */ || number == 15 /* rt_sigreturn */;
}

/* Calls that wait for ever when they are allowed; any other that does is an error. */
static int waits(int interface, unsigned number, int64_t argument) {
    if (interface == 386) {
        return number == 29 /* pause */ || (argument == 0 && (number == 142 /* _newselect */ || number == 308 /* pselect6 */ ||
               number == 309 /* ppoll */ || number == 413 /* pselect6_time64 */ || number == 414 /* ppoll_time64 */));
    }
    return number == 34 /* pause */ || (argument == 0 && (number == 23 /* select */ || number == 70 /* msgrcv */ || number == 270 /* pselect6 */ ||
           number == 271 /* ppoll */));
}

static void probe_one(int interface, unsigned number, int64_t argument, volatile int64_t *outcome) {
    const char *name = argument == 0 ? "0" : "-1";
    if (spared(interface, number)) return;
    *outcome = NOT_RETURNED;
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) {
        struct itimerval patience = {{0, 0}, {10, 0}};
        if (waits(interface, number, argument)) patience = (struct itimerval){{0, 0}, {0, 20000}};
        setitimer(ITIMER_REAL, &patience, NULL);
        int64_t self = call64(SYS_getpid, 0);
        int64_t result;
        if (interface == 386) result = call32(number, argument);
        else if (interface == 32) result = call64(number | X32_BIT, argument);
        else result = call64(number, argument);
        /* Where the call was a fork, the new process comes here too, maybe when the next call is being tried. */
        if (call64(SYS_getpid, 0) == self) *outcome = result;
        call64(SYS_exit_group, 0);
    }
    int status;
    if (waitpid(child, &status, 0) < 0) fail("waitpid");
    printf("%d %u %s ", interface, number, name);
    if (WIFSIGNALED(status)) printf("signal %d\n", WTERMSIG(status));
    else if (*outcome == NOT_RETURNED) puts("exit");
    else if (*outcome < 0 && *outcome >= -4095) printf("errno %d\n", (int)-*outcome);
    else puts("ok");
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "wait")) {
        for (;;) pause();
    }
    if (argc == 3 && !strcmp(argv[1], "filter")) {
        print_filter(atoi(argv[2]));
        return 0;
    }
    if (argc < 2 || strcmp(argv[1], "calls")) return 98;
    volatile int64_t *outcome = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (outcome == MAP_FAILED) fail("mmap");
    /* A child shall not write out again what its parent still has in the buffer. */
    static char buffer[1 << 20];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    if (argc == 3) load_filter(argv[2]);
    const int interfaces[] = {64, 386, 32};
    for (int i = 0; i < 3; i++) {
        for (unsigned number = 0; number <= LAST_NUMBER; number++) {
            probe_one(interfaces[i], number, -1, outcome);
            probe_one(interfaces[i], number, 0, outcome);
        }
    }
    return fflush(stdout) == 0 ? 0 : 97;
}
