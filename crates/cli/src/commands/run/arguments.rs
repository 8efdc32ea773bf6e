//! What may be typed after `coracle run`: docker's names and forms. As there, the word behind an option is its value, whatever it
//! begins with.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ArgAction;

use crate::explain::Form;

/// Run a program in a new container
#[derive(Debug, clap::Args)]
#[command(
    disable_help_flag = true,
    after_help = "Options end at IMAGE: what follows it is the container's command. An option that can have several values is \
                  given once for each.",
    override_usage = "coracle run [OPTIONS] IMAGE [COMMAND] [ARG...]\n       coracle run [OPTIONS] --rootfs DIR COMMAND [ARG...]"
)]
pub struct Arguments {
    /// The image, and what to run in it instead of its own command
    #[arg(value_name = "IMAGE [COMMAND]", trailing_var_arg = true, hide = true)]
    pub words: Vec<String>,
    /// Print help
    #[arg(long, action = ArgAction::HelpShort)]
    pub help: Option<bool>,

    // Life
    /// Remove the container when it ends
    #[arg(long, help_heading = "Life")]
    pub rm: bool,
    /// Name the container [default: two words]
    #[arg(long, value_name = "NAME", allow_hyphen_values = true, help_heading = "Life")]
    pub name: Option<String>,
    /// Write the container's id to a file
    #[arg(long, value_name = "FILE", allow_hyphen_values = true, help_heading = "Life")]
    pub cidfile: Option<OsString>,
    /// Attach a note
    #[arg(short, long, value_name = "KEY=VALUE", allow_hyphen_values = true, help_heading = "Life")]
    pub label: Vec<String>,
    /// Attach the notes in a file, one a line
    #[arg(long, value_name = "FILE", allow_hyphen_values = true, help_heading = "Life")]
    pub label_file: Vec<PathBuf>,
    /// When to ask the registry for the image: missing, always or never [default: missing]
    #[arg(long, value_name = "POLICY", allow_hyphen_values = true, help_heading = "Life")]
    pub pull: Option<String>,
    /// Do not show how far a pull is
    #[arg(short, long, help_heading = "Life")]
    pub quiet: bool,
    /// Which platform's image to use, for example linux/arm64
    #[arg(long, value_name = "PLATFORM", allow_hyphen_values = true, help_heading = "Life")]
    pub platform: Option<String>,
    /// Signal that asks the program to end [default: the image's, or TERM]
    #[arg(long, value_name = "SIGNAL", allow_hyphen_values = true, help_heading = "Life")]
    pub stop_signal: Option<String>,
    /// Seconds from that signal to KILL
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true, help_heading = "Life")]
    pub stop_timeout: Option<String>,
    /// Say on standard error, when it has ended, what was done to the machine, why, and how long it took: text, or json (one line);
    /// values of -e are left out
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "text", hide_possible_values = true, help_heading = "Life")]
    pub explain: Option<Form>,
    /// Not in this version
    #[arg(short, long, hide = true)]
    pub detach: bool,
    /// Not in this version
    #[arg(short, long, hide = true)]
    pub publish: Vec<String>,
    /// Not in this version
    #[arg(long, hide = true)]
    pub restart: Option<String>,

    // Process
    /// Keep standard input open
    #[arg(short, long, help_heading = "Process")]
    pub interactive: bool,
    /// Give the program a terminal
    #[arg(short, long, help_heading = "Process")]
    pub tty: bool,
    /// Set a variable, or pass the one of that name on
    #[arg(short, long, value_name = "NAME[=VALUE]", allow_hyphen_values = true, help_heading = "Process")]
    pub env: Vec<String>,
    /// Set the variables in a file, one a line
    #[arg(long, value_name = "FILE", allow_hyphen_values = true, help_heading = "Process")]
    pub env_file: Vec<PathBuf>,
    /// Start in this directory, made if missing
    #[arg(short, long, value_name = "DIR", allow_hyphen_values = true, help_heading = "Process")]
    pub workdir: Option<String>,
    /// Run as this user, by names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]", allow_hyphen_values = true, help_heading = "Process")]
    pub user: Option<String>,
    /// Join one more group, by name or number
    #[arg(long, value_name = "GROUP", allow_hyphen_values = true, help_heading = "Process")]
    pub group_add: Vec<String>,
    /// Run this program instead of the image's entry point
    #[arg(long, value_name = "PROGRAM", allow_hyphen_values = true, help_heading = "Process")]
    pub entrypoint: Option<String>,
    /// Put a small first process before the program: it reaps orphans and passes signals on
    #[arg(long, help_heading = "Process")]
    pub init: bool,
    /// Run with all capabilities, all devices and no filter: not isolated from the machine
    #[arg(long, help_heading = "Process")]
    pub privileged: bool,
    /// Give a capability, for example NET_ADMIN, or ALL
    #[arg(long, value_name = "CAPABILITY", allow_hyphen_values = true, help_heading = "Process")]
    pub cap_add: Vec<String>,
    /// Take a capability away, or ALL
    #[arg(long, value_name = "CAPABILITY", allow_hyphen_values = true, help_heading = "Process")]
    pub cap_drop: Vec<String>,
    /// no-new-privileges, seccomp=FILE, seccomp=unconfined, apparmor=PROFILE, apparmor=unconfined, systempaths=unconfined
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true, help_heading = "Process")]
    pub security_opt: Vec<String>,

    // Isolation
    /// The container's host name [default: the beginning of its id]
    #[arg(short = 'h', long, value_name = "NAME", allow_hyphen_values = true, help_heading = "Isolation")]
    pub hostname: Option<String>,
    /// The container's NIS domain name
    #[arg(long, value_name = "NAME", allow_hyphen_values = true, help_heading = "Isolation")]
    pub domainname: Option<String>,
    /// Process numbers: private, host or container:NAME
    #[arg(long, value_name = "NAMESPACE", allow_hyphen_values = true, help_heading = "Isolation")]
    pub pid: Option<String>,
    /// Message queues and shared memory: private, shareable, none, host or container:NAME
    #[arg(long, value_name = "NAMESPACE", allow_hyphen_values = true, help_heading = "Isolation")]
    pub ipc: Option<String>,
    /// Host name: private or host
    #[arg(long, value_name = "NAMESPACE", allow_hyphen_values = true, help_heading = "Isolation")]
    pub uts: Option<String>,
    /// Users: host, private, auto or keep-id (yours, and what the image gives root is yours too) [default: host for root, private for others]
    #[arg(long, value_name = "NAMESPACE", allow_hyphen_values = true, help_heading = "Isolation")]
    pub userns: Option<String>,
    /// View of control groups: private or host
    #[arg(long, value_name = "NAMESPACE", allow_hyphen_values = true, help_heading = "Isolation")]
    pub cgroupns: Option<String>,
    /// Shift a clock, for example boottime=+3600s
    #[arg(long, value_name = "CLOCK=TIME", allow_hyphen_values = true, help_heading = "Isolation")]
    pub time_offset: Vec<String>,
    /// Set a kernel parameter of the container's namespaces
    #[arg(long, value_name = "NAME=VALUE", allow_hyphen_values = true, help_heading = "Isolation")]
    pub sysctl: Vec<String>,

    // Network
    /// none (only a loopback device), host or container:NAME
    #[arg(
        long,
        visible_alias = "net",
        value_name = "NETWORK",
        allow_hyphen_values = true,
        help_heading = "Network"
    )]
    pub network: Option<String>,
    /// Add a line to /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS", allow_hyphen_values = true, help_heading = "Network")]
    pub add_host: Vec<String>,
    /// Ask this name server
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true, help_heading = "Network")]
    pub dns: Vec<String>,
    /// Look for short names in this domain
    #[arg(long, value_name = "DOMAIN", allow_hyphen_values = true, help_heading = "Network")]
    pub dns_search: Vec<String>,
    /// Set an option of resolv.conf
    #[arg(
        long,
        visible_alias = "dns-opt",
        value_name = "OPTION",
        allow_hyphen_values = true,
        help_heading = "Network"
    )]
    pub dns_option: Vec<String>,

    // File system
    /// Use a directory as the root file system; places to mount on that it lacks are made in it
    #[arg(long, value_name = "DIR", allow_hyphen_values = true, help_heading = "File system")]
    pub rootfs: Option<PathBuf>,
    /// Make the root file system unchangeable
    #[arg(long, help_heading = "File system")]
    pub read_only: bool,
    /// Show a directory or file of the host; options ro, rslave, rshared and others
    #[arg(
        short,
        long,
        value_name = "FROM:TO[:OPTIONS]",
        allow_hyphen_values = true,
        help_heading = "File system"
    )]
    pub volume: Vec<String>,
    /// The same and more: type=bind|tmpfs,source=...,destination=...
    #[arg(long, value_name = "KEY=VALUE,...", allow_hyphen_values = true, help_heading = "File system")]
    pub mount: Vec<String>,
    /// Mount a file system in memory, for example /tmp:size=100m,mode=1777
    #[arg(long, value_name = "PATH[:OPTIONS]", allow_hyphen_values = true, help_heading = "File system")]
    pub tmpfs: Vec<String>,
    /// Size of /dev/shm [default: 64m]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, help_heading = "File system")]
    pub shm_size: Option<String>,
    /// Add a device of the host; by the name that a CDI file gives it: VENDOR/CLASS=NAME
    #[arg(
        long,
        value_name = "PATH[:INSIDE][:rwm]",
        allow_hyphen_values = true,
        help_heading = "File system"
    )]
    pub device: Vec<String>,
    /// Look for CDI files here; the last directory wins [default: /etc/cdi, /var/run/cdi]
    #[arg(long, value_name = "DIR", allow_hyphen_values = true, help_heading = "File system")]
    pub cdi_spec_dir: Vec<String>,
    /// Allow devices by number, for example 'c 10:200 rwm'
    #[arg(long, value_name = "RULE", allow_hyphen_values = true, help_heading = "File system")]
    pub device_cgroup_rule: Vec<String>,

    // Limits
    /// Most memory, for example 50m
    #[arg(short, long, value_name = "SIZE", allow_hyphen_values = true, help_heading = "Limits")]
    pub memory: Option<String>,
    /// Most memory and swap together, -1 for no limit [default: twice the memory]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, help_heading = "Limits")]
    pub memory_swap: Option<String>,
    /// Memory that is kept for the container when it is scarce
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, help_heading = "Limits")]
    pub memory_reservation: Option<String>,
    /// Not in this version
    #[arg(long, hide = true)]
    pub oom_kill_disable: bool,
    /// How early to be ended when memory is scarce: -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, help_heading = "Limits")]
    pub oom_score_adj: Option<String>,
    /// Most processes and threads
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, help_heading = "Limits")]
    pub pids_limit: Option<String>,
    /// Most processors, for example 0.5
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, help_heading = "Limits")]
    pub cpus: Option<String>,
    /// Weight when processors are scarce; 1024 is the usual
    #[arg(short, long, value_name = "WEIGHT", allow_hyphen_values = true, help_heading = "Limits")]
    pub cpu_shares: Option<String>,
    /// Microseconds in which --cpu-quota may be used
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true, help_heading = "Limits")]
    pub cpu_period: Option<String>,
    /// Microseconds of processor time in each period
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true, help_heading = "Limits")]
    pub cpu_quota: Option<String>,
    /// Only these processors, for example 0-2,5
    #[arg(long, value_name = "LIST", allow_hyphen_values = true, help_heading = "Limits")]
    pub cpuset_cpus: Option<String>,
    /// Only these memory nodes
    #[arg(long, value_name = "LIST", allow_hyphen_values = true, help_heading = "Limits")]
    pub cpuset_mems: Option<String>,
    /// Weight when disks are busy: 10 to 1000
    #[arg(long, value_name = "WEIGHT", allow_hyphen_values = true, help_heading = "Limits")]
    pub blkio_weight: Option<String>,
    /// The same for one disk
    #[arg(long, value_name = "PATH:WEIGHT", allow_hyphen_values = true, help_heading = "Limits")]
    pub blkio_weight_device: Vec<String>,
    /// Most bytes read from a disk in a second
    #[arg(long, value_name = "PATH:SIZE", allow_hyphen_values = true, help_heading = "Limits")]
    pub device_read_bps: Vec<String>,
    /// Most bytes written to a disk in a second
    #[arg(long, value_name = "PATH:SIZE", allow_hyphen_values = true, help_heading = "Limits")]
    pub device_write_bps: Vec<String>,
    /// Most reads from a disk in a second
    #[arg(long, value_name = "PATH:NUMBER", allow_hyphen_values = true, help_heading = "Limits")]
    pub device_read_iops: Vec<String>,
    /// Most writes to a disk in a second
    #[arg(long, value_name = "PATH:NUMBER", allow_hyphen_values = true, help_heading = "Limits")]
    pub device_write_iops: Vec<String>,
    /// Limit a process as setrlimit does, for example nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]", allow_hyphen_values = true, help_heading = "Limits")]
    pub ulimit: Vec<String>,
    /// Put the container's control group below this one
    #[arg(long, value_name = "PATH", allow_hyphen_values = true, help_heading = "Limits")]
    pub cgroup_parent: Option<String>,
}
