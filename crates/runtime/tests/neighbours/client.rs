//! What docker's command line and podman's have in common: the words.

use std::process::Command;

use crate::place::Ran;

/// A client of an engine that has an image `busybox`.
pub trait Client {
    /// The client with these arguments, not started.
    fn command(&self, arguments: &[&str]) -> Command;

    /// What each `run` is given besides.
    fn of_run(&self) -> Vec<String> {
        vec!["--network=none".to_owned()]
    }

    fn ask(&self, arguments: &[&str]) -> Ran {
        self.command(arguments).output().unwrap().into()
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        self.ask(arguments).ok().trim_end().to_owned()
    }

    /// Runs a container without a network: `options`, the image, the command.
    fn run(&self, arguments: &[&str]) -> Ran {
        let own = self.of_run();
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        self.ask(&[&["run"], &own[..], arguments].concat())
    }

    /// Starts one called `name`, that runs a script.
    #[track_caller]
    fn start(&self, name: &str, options: &[&str], script: &str) {
        self.run(&[&["-d", "--name", name], options, &["busybox", "sh", "-c", script]].concat()).ok();
    }

    #[track_caller]
    fn inspect(&self, name: &str, field: &str) -> String {
        self.ok(&["inspect", "--format", &format!("{{{{.{field}}}}}"), name])
    }

    /// What a container's script wrote to its output until now.
    fn logs(&self, name: &str) -> String {
        self.ok(&["logs", name])
    }
}
