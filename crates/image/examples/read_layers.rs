//! The least that a pull has to do: fetches each URL on a thread of its own, takes its digest, decompresses it, and takes the digest of that.
//! `cargo xtask bench images` measures pulls against it; it writes nothing.

use std::io::{self, Read};
use std::process::ExitCode;

use flate2::read::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

/// Takes the digest of what passes.
struct Digested<R>(R, Sha256);

impl<R: Read> Read for Digested<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.update(&buffer[..count]);
        Ok(count)
    }
}

fn read(url: &str) -> io::Result<(Sha256, Sha256)> {
    let answer = ureq::get(url).call().map_err(io::Error::other)?;
    let stored = Digested(answer.into_body().into_reader(), Sha256::new());
    let mut plain = MultiGzDecoder::new(io::BufReader::with_capacity(256 << 10, stored));
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        let count = plain.read(&mut buffer)?;
        if count == 0 {
            return Ok((plain.into_inner().into_inner().1, digest));
        }
        digest.update(&buffer[..count]);
    }
}

fn main() -> ExitCode {
    let urls: Vec<String> = std::env::args().skip(1).collect();
    let is_read = std::thread::scope(|scope| {
        let threads: Vec<_> = urls.iter().map(|url| scope.spawn(|| read(url))).collect();
        threads.into_iter().all(|thread| match thread.join() {
            Ok(Ok((stored, plain))) => {
                println!("{:x} {:x}", stored.finalize(), plain.finalize());
                true
            }
            Ok(Err(error)) => {
                eprintln!("{error}");
                false
            }
            Err(_) => false,
        })
    });
    ExitCode::from(u8::from(!is_read))
}
