//! `coracle run`: what goes in, what comes out.

use std::io::Write as _;
use std::process::Stdio;

use crate::coracle::Coracle;

#[test]
fn runs_a_program_and_ends_as_it_did() {
    let coracle = Coracle::with_busybox();
    assert_eq!(coracle.ok(&["run", "--rm", "busybox", "echo", "hello"]), "hello\n");
    assert_eq!(coracle.run(&["run", "--rm", "busybox", "sh", "-c", "exit 7"]).code, 7);
    // Its own first process cannot be killed from inside; one below it can, and the shell says so.
    assert_eq!(coracle.run(&["run", "--rm", "busybox", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]).code, 137);
    coracle.assert_nothing_left();
}

#[test]
fn tells_a_missing_program_from_one_that_cannot_run() {
    let coracle = Coracle::with_busybox();
    let missing = coracle.run(&["run", "--rm", "busybox", "no-such-program"]);
    assert_eq!(missing.code, 127);
    assert!(missing.err.contains("\"no-such-program\": not found in $PATH"), "{}", missing.err);
    assert_eq!(missing.err.lines().count(), 3, "what failed, because of what, what to do: {}", missing.err);
    assert_eq!(coracle.run(&["run", "--rm", "busybox", "/etc/passwd"]).code, 126);
    assert_eq!(coracle.run(&["run", "--rm", "no-such-image"]).code, 125);
    coracle.assert_nothing_left();
}

#[test]
fn passes_standard_input_and_its_end() {
    let coracle = Coracle::with_busybox();
    let mut child = coracle
        .command(&["run", "--rm", "-i", "busybox", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let text = "line\n".repeat(100_000);
    let mut input = child.stdin.take().unwrap();
    let copy = text.clone();
    let writer = std::thread::spawn(move || input.write_all(copy.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.stdout == text.as_bytes(), "got {} of {} bytes", output.stdout.len(), text.len());
}
