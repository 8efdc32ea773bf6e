//! Runs classic BPF as the kernel would, so that two filters can be compared without making the calls.

use kernel::seccomp::Instruction;

/// What a filter sees of a call: `struct seccomp_data`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) number: u32,
    pub(crate) audit: u32,
    pub(crate) args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        let argument = |offset: u32| self.args[(offset / 8) as usize];
        match offset {
            0 => self.number,
            4 => self.audit,
            16..64 if offset.is_multiple_of(8) => argument(offset - 16) as u32,
            16..64 if offset % 8 == 4 => (argument(offset - 20) >> 32) as u32,
            _ => panic!("a load at offset {offset}"),
        }
    }
}

/// What `program` returns for `call`. Panics on a program that the kernel would not take.
pub(crate) fn run(program: &[Instruction], call: &Call) -> u32 {
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let holds = match code {
            0x06 => return k,
            0x20 => {
                accumulator = call.word(k);
                continue;
            }
            0x54 => {
                accumulator &= k;
                continue;
            }
            0x05 => {
                at += k as usize;
                continue;
            }
            0x15 => accumulator == k,
            0x25 => accumulator > k,
            0x35 => accumulator >= k,
            0x45 => accumulator & k != 0,
            _ => panic!("instruction {code:#x}"),
        };
        at += usize::from(if holds { jt } else { jf });
    }
}
