use crate::error::Error;
use engine::Roots;
use std::os::fd::AsFd;
use std::process::ExitCode;
/// Run a program in a new container
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[arg(long)]
    rm: bool,
    #[arg(short)]
    i: bool,
    #[arg(short)]
    t: bool,
    #[arg(long)]
    init: bool,
    #[arg(long)]
    name: Option<String>,
    #[arg(short)]
    u: Option<String>,
    #[arg(long)]
    explain: bool,
    #[arg(long)]
    extra: Vec<String>,
    image: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}
pub fn run(roots: &Roots, a: Arguments) -> Result<ExitCode, Error> {
    let spec = engine::spec::Spec {
        name: a.name,
        image: Some(a.image),
        interactive: a.i,
        terminal: a.t,
        remove: a.rm,
        command: a.command,
        init: a.init,
        process: engine::spec::ProcessOptions { user: a.u, ..Default::default() },
        isolation: engine::spec::Isolation {
            user: if a.extra.iter().any(|x| x == "userns") {
                engine::spec::Choice::Private
            } else {
                Default::default()
            },
            time_offsets: a
                .extra
                .iter()
                .filter(|x| *x == "time")
                .map(|_| ("boottime".to_owned(), runtime::spec::TimeOffset { secs: 100000, nanosecs: 0 }))
                .collect(),
            ..Default::default()
        },
        ..Default::default()
    };
    let log = if a.explain { Some(kernel::record::Log::create().unwrap()) } else { None };
    let (i, o, e) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let r = engine::run(
        roots,
        &spec,
        engine::UserSide { input: i.as_fd(), output: o.as_fd(), error: e.as_fd() },
        log.as_ref(),
    );
    if let Some(log) = &log {
        for e in log.events() {
            let args: Vec<String> = e.args.iter().map(|a| a.to_string()).collect();
            eprintln!(
                "{:?} {:?} {}({}) = {} [{} us] {}",
                e.actor,
                e.chapter,
                e.call,
                args.join(", "),
                e.result,
                e.duration_ns / 1000,
                e.why
            );
        }
    }
    Ok(ExitCode::from(r?.code as u8))
}
