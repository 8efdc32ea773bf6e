//! An assembler for classic BPF ([kernel: networking/filter.rst](https://docs.kernel.org/networking/filter.html)).
//!
//! Jumps of BPF go forward only, and those of a test skip at most 255 instructions. So a program is written from its
//! end to its beginning: whatever a jump goes to is already there, its distance is known, and where it is too
//! far a nearer copy or an unconditional jump (which reaches everywhere) is put in between.

use kernel::seccomp::Instruction;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// A test of the accumulator against a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Test {
    Equal = 0x15,          // BPF_JMP | BPF_JEQ | BPF_K
    Greater = 0x25,        // BPF_JMP | BPF_JGT | BPF_K
    GreaterOrEqual = 0x35, // BPF_JMP | BPF_JGE | BPF_K
}

/// An instruction that was written, counted from the program's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A program in the making. Execution falls from what is written into what was written before it.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// The last instruction first.
    reversed: Vec<Instruction>,
    /// The nearest return of each value.
    returns: Vec<(u32, Label)>,
}

/// How far away a return may stand to be used again: no test that is written soon shall find it out of reach.
const NEAR: usize = 200;

impl Assembler {
    /// Ends the program with `value`.
    pub(super) fn ret(&mut self, value: u32) -> Label {
        let known = self.returns.iter().position(|(other, _)| *other == value);
        if let Some(at) = known {
            let label = self.returns[at].1;
            if self.reversed.len() - label.0 < NEAR {
                return label;
            }
            self.returns.swap_remove(at);
        }
        let label = self.push(RETURN, 0, 0, value);
        self.returns.push((value, label));
        label
    }

    /// Loads the 32 bits at `offset` of `struct seccomp_data`, then goes on at `next`.
    pub(super) fn load(&mut self, offset: u32, next: Label) -> Label {
        self.fall_into(next);
        self.push(LOAD, 0, 0, offset)
    }

    /// Clears the bits that are not in `mask`, then goes on at `next`.
    pub(super) fn and(&mut self, mask: u32, next: Label) -> Label {
        self.fall_into(next);
        self.push(AND, 0, 0, mask)
    }

    /// Goes on at `yes` or `no`.
    pub(super) fn branch(&mut self, test: Test, k: u32, yes: Label, no: Label) -> Label {
        let yes = self.within_reach(yes);
        let no = self.within_reach(no);
        let (jt, jf) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.push(test as u16, jt, jf, k)
    }

    /// The program, which begins at `start`.
    pub(super) fn finish(mut self, start: Label) -> Vec<Instruction> {
        self.fall_into(start);
        self.reversed.reverse();
        self.reversed
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(Instruction { code, jt, jf, k });
        Label(self.reversed.len() - 1)
    }

    /// How many instructions the next one to be written skips when it jumps to `label`.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - 1 - label.0
    }

    /// Makes what is written next fall into `label`.
    fn fall_into(&mut self, label: Label) {
        let distance = self.distance(label);
        if distance > 0 {
            self.push(JUMP, 0, 0, distance as u32);
        }
    }

    /// `label`, or something with the same effect that a test can reach, even after one more such step.
    fn within_reach(&mut self, label: Label) -> Label {
        if self.distance(label) < 255 {
            return label;
        }
        let there = self.reversed[label.0];
        if there.code == RETURN {
            return self.ret(there.k);
        }
        let distance = self.distance(label) as u32;
        self.push(JUMP, 0, 0, distance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn falls_through_where_it_can() {
        let mut program = Assembler::default();
        let no = program.ret(2);
        let yes = program.ret(1);
        let test = program.branch(Test::Equal, 7, yes, no);
        let start = program.load(0, test);
        let instruction = |code, jt, jf, k| Instruction { code, jt, jf, k };
        assert_eq!(
            program.finish(start),
            [
                instruction(LOAD, 0, 0, 0),
                instruction(0x15, 0, 1, 7),
                instruction(RETURN, 0, 0, 1),
                instruction(RETURN, 0, 0, 2)
            ]
        );
    }

    #[test]
    fn jumps_of_every_length_arrive() {
        for gap in 0..600 {
            let mut program = Assembler::default();
            let no = program.ret(2);
            let far = program.load(4, no);
            for value in 0..gap {
                program.ret(100 + value);
            }
            let start = program.branch(Test::Equal, 7, far, no);
            let program = program.finish(start);
            // Follow both ways by hand.
            let mut ways = vec![];
            for jump in [program[0].jt, program[0].jf] {
                let mut at = 1 + usize::from(jump);
                if program[at].code == JUMP {
                    at += 1 + program[at].k as usize;
                }
                ways.push((program[at].code, program[at].k));
            }
            assert_eq!(ways, [(LOAD, 4), (RETURN, 2)], "with {gap} instructions between");
        }
    }
}
