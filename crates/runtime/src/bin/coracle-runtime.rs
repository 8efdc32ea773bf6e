//! coracle-runtime: the small program that makes containers and looks after them.

use std::process::ExitCode;

use runtime::{monitor, reaper};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [reaper::ARGUMENT, program, ..] => {
            let status = reaper::run(program.as_ref(), &args[2..]);
            ExitCode::from(status as u8)
        }
        [_, monitor::ARGUMENT, ..] => match monitor::Start::parse(&args[2..]).and_then(monitor::run) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("coracle-runtime: {error}");
                ExitCode::from(125)
            }
        },
        [_, "--version"] => {
            println!("coracle-runtime {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("coracle-runtime: coracle starts this program by itself; see `coracle run --help`");
            ExitCode::from(125)
        }
    }
}
