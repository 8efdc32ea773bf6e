//! Compression by several threads that gives the same bytes whatever their number.
//!
//! The plain bytes are cut into blocks of one length, each of which is compressed by itself. gzip's are joined to one deflate stream in one
//! member: each ends at a whole byte (a "sync flush" of RFC 1951). zstd's are frames, one behind the other (RFC 8878 section 3.1).

use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::{Compress, Compression as Level, Crc, FlushCompress, Status};

/// How long a block is: a dictionary's worth of bytes is lost at its beginning.
const GZIP_BLOCK: usize = 1 << 20;
const ZSTD_BLOCK: usize = 4 << 20;
/// No name, no time, no system (RFC 1952).
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// The last block of a deflate stream, with nothing in it.
const DEFLATE_END: [u8; 2] = [3, 0];

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RFC 1952; what every tool reads.
    Gzip,
    /// RFC 8878; in OCI's manifests only.
    Zstd,
}

impl Algorithm {
    /// The levels that there are.
    pub fn levels(self) -> std::ops::RangeInclusive<i32> {
        match self {
            Self::Gzip => 1..=9,
            Self::Zstd => 1..=20,
        }
    }

    fn default_level(self) -> i32 {
        match self {
            Self::Gzip => 6,
            Self::Zstd => 3,
        }
    }
}

/// A block, plain and then compressed.
struct Block {
    plain: Vec<u8>,
    packed: io::Result<Vec<u8>>,
    crc: Crc,
}

/// Compresses `input` to its end.
pub(crate) fn compress(
    input: &mut dyn Read,
    output: &mut dyn Write,
    algorithm: Algorithm,
    level: Option<i32>,
    threads: usize,
) -> io::Result<()> {
    let level = level.unwrap_or(algorithm.default_level());
    let length = match algorithm {
        Algorithm::Gzip => GZIP_BLOCK,
        Algorithm::Zstd => ZSTD_BLOCK,
    };
    let (mut crc, mut is_empty) = (Crc::new(), true);
    if algorithm == Algorithm::Gzip {
        output.write_all(&GZIP_HEADER)?;
    }
    loop {
        let blocks = read_blocks(input, length, threads)?;
        let is_last = blocks.len() < threads || blocks.last().is_none_or(|block| block.len() < length);
        for block in pack(blocks, algorithm, level, threads) {
            output.write_all(&block.packed?)?;
            crc.combine(&block.crc);
            is_empty = false;
        }
        if is_last {
            break;
        }
    }
    match algorithm {
        Algorithm::Gzip => {
            output.write_all(&DEFLATE_END)?;
            output.write_all(&crc.sum().to_le_bytes())?;
            output.write_all(&crc.amount().to_le_bytes())
        }
        Algorithm::Zstd if is_empty => output.write_all(&zstd::bulk::compress(&[], level)?),
        Algorithm::Zstd => Ok(()),
    }
}

/// Up to `count` blocks; all but the input's last one are full, and none is empty.
fn read_blocks(input: &mut dyn Read, length: usize, count: usize) -> io::Result<Vec<Vec<u8>>> {
    let mut blocks = Vec::with_capacity(count);
    while blocks.len() < count {
        let mut block = Vec::with_capacity(length);
        input.take(length as u64).read_to_end(&mut block)?;
        let is_last = block.len() < length;
        blocks.extend((!block.is_empty()).then_some(block));
        if is_last {
            break;
        }
    }
    Ok(blocks)
}

fn pack(blocks: Vec<Vec<u8>>, algorithm: Algorithm, level: i32, threads: usize) -> Vec<Block> {
    let blocks: Vec<Mutex<Block>> = blocks
        .into_iter()
        .map(|plain| Mutex::new(Block { plain, packed: Ok(Vec::new()), crc: Crc::new() }))
        .collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(block) = blocks.get(next.fetch_add(1, Ordering::Relaxed)) {
            let Ok(mut block) = block.lock() else { return };
            block.packed = match algorithm {
                Algorithm::Gzip => deflate(&block.plain, level),
                Algorithm::Zstd => zstd::bulk::compress(&block.plain, level),
            };
            let plain = std::mem::take(&mut block.plain);
            if algorithm == Algorithm::Gzip {
                block.crc.update(&plain);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(blocks.len()) {
            scope.spawn(work);
        }
        work();
    });
    blocks.into_iter().filter_map(|block| block.into_inner().ok()).collect()
}

/// Deflate blocks that end at a whole byte, none of them the stream's last one.
fn deflate(plain: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let mut compress = Compress::new(Level::new(level.unsigned_abs()), false);
    let mut packed = Vec::with_capacity(plain.len() / 2 + 64);
    loop {
        let read = usize::try_from(compress.total_in()).unwrap_or(usize::MAX).min(plain.len());
        let status = compress.compress_vec(&plain[read..], &mut packed, FlushCompress::Sync)?;
        // A flush is complete when there is room left behind it.
        if status != Status::Ok
            || (compress.total_in() == plain.len() as u64 && packed.len() < packed.capacity())
        {
            return Ok(packed);
        }
        packed.reserve(packed.capacity().max(1024));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of which some can be compressed.
    fn sample(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let byte = |at: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if at % 4096 < 2048 { (at % 251) as u8 } else { (state >> 24) as u8 }
        };
        (0..length).map(byte).collect()
    }

    fn compressed(plain: &[u8], algorithm: Algorithm, level: Option<i32>, threads: usize) -> Vec<u8> {
        let mut output = Vec::new();
        compress(&mut &plain[..], &mut output, algorithm, level, threads).unwrap();
        output
    }

    #[test]
    fn the_same_bytes_come_of_any_number_of_threads_and_mean_what_was_given() {
        let lengths = [0, 1, GZIP_BLOCK - 1, GZIP_BLOCK, GZIP_BLOCK + 1, 3 * ZSTD_BLOCK + 17, 2 * ZSTD_BLOCK];
        for plain in lengths.map(sample) {
            for (algorithm, level) in
                [(Algorithm::Gzip, None), (Algorithm::Gzip, Some(1)), (Algorithm::Zstd, None)]
            {
                let one = compressed(&plain, algorithm, level, 1);
                for threads in [2, 3, 8] {
                    assert!(
                        compressed(&plain, algorithm, level, threads) == one,
                        "{threads} {}",
                        plain.len()
                    );
                }
                let mut read = Vec::new();
                match algorithm {
                    // Not the decoder of several members: it is one.
                    Algorithm::Gzip => flate2::read::GzDecoder::new(&one[..]).read_to_end(&mut read).unwrap(),
                    Algorithm::Zstd => zstd::Decoder::new(&one[..]).unwrap().read_to_end(&mut read).unwrap(),
                };
                assert!(read == plain, "{algorithm:?} {}", plain.len());
            }
        }
    }
}
