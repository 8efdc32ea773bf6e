//! Prints what it costs to make docker's default filter, in nanoseconds: the median of 1,001 times, each from the
//! profile to the finished program, for docker's default capabilities.

use std::hint::black_box;
use std::time::Instant;

use runtime::seccomp::{Error, Filter};

/// The capabilities that docker gives a container by default.
const DEFAULT_CAPABILITIES: u64 = 0xa804_25fb;

fn main() -> Result<(), Error> {
    let filter = Filter::docker_default(DEFAULT_CAPABILITIES)?;
    let mut nanoseconds = Vec::with_capacity(1001);
    for _ in 0..1001 {
        let start = Instant::now();
        black_box(Filter::docker_default(black_box(DEFAULT_CAPABILITIES))?);
        nanoseconds.push(start.elapsed().as_nanos());
    }
    let first = nanoseconds[0];
    nanoseconds.sort_unstable();
    let median = nanoseconds[nanoseconds.len() / 2];
    println!("median {median} ns, first {first} ns, {} instructions", filter.program.len());
    Ok(())
}
