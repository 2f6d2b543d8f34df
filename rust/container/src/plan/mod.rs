//! A container as a list of operations.
//!
//! A [`Plan`] has two lists. The **keeper's** runs with the host's rights: it makes cgroups, clones
//! the child, writes its id maps and prepares mounts that stay detached. The **child's** runs inside
//! the new namespaces and ends in `Exec`. Both are flat bytes, so that a plan can be kept, sent
//! through a memfd, printed, fuzzed, and walked by a child that must not allocate.
//!
//! ```text
//! header   magic "pyrtplan", version u32, keeper ops u32, child ops u32, keeper bytes u32
//! keeper   op, op, ...          op = code u16, length of the fields u32, fields
//! child    op, op, ...
//! ```
//!
//! Fields are little-endian and unaligned; a text is `u32 length, bytes, NUL` so that it can be handed
//! to the kernel where it lies. Descriptors are named by [`Slot`]: an index into a table that starts
//! with what the engine sent and grows as operations open things.

mod fields;
mod op;

pub use fields::{FIRST_OPENED, STDERR, STDIN, STDOUT, Slot, Slots, Texts, TextsBuf, as_slots, pack_slots};
pub use op::Op;

pub(crate) use fields::{Field, split};

/// First bytes of every plan.
pub const MAGIC: &[u8; 8] = b"pyrtplan";
/// Changes whenever an operation or a field does; an old keeper refuses a newer plan.
pub const VERSION: u32 = 9;
/// A bit of clone(2) and unshare(2) that the C library does not have.
pub(crate) const CLONE_NEWTIME: u64 = 0x80;
/// Size of the descriptor table of one execution.
pub const SLOTS: usize = 768;
/// Most operations in one plan, both lists together; also the length of the timing table.
pub const MAX_OPS: usize = 1024;

/// Why bytes are not a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Does not begin with [`MAGIC`].
    #[error("not a plan")]
    Magic,
    /// Written by another version of pyrt.
    #[error("plan of version {0}, this keeper reads version {VERSION}")]
    Version(u32),
    /// Ends inside an operation or has bytes left over.
    #[error("plan ends in the middle of an operation")]
    Truncated,
    /// An operation code that this version does not know.
    #[error("unknown operation {0}")]
    Code(u16),
    /// A text without its NUL or with one inside, a slot out of range, too many operations.
    #[error("a field of operation {0} is out of bounds")]
    Field(u16),
}

/// Which list an operation stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Run by the keeper, with the host's rights.
    Keeper,
    /// Run by the child, inside.
    Child,
}

/// A plan's bytes, checked once, so that walking it can't fail.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    keeper: &'a [u8],
    child: &'a [u8],
    keeper_ops: u32,
    child_ops: u32,
    facts: Facts,
}

/// What is asked of a plan as a whole, found while it is checked.
#[derive(Clone, Copy, Debug)]
struct Facts {
    /// The flags of its first `Clone` that puts the child into no cgroup of version 2.
    clones: Option<u64>,
    /// See [`Plan::shares_memory`].
    shares_memory: bool,
    /// See [`Plan::waits`].
    waits: bool,
}

impl Facts {
    fn add(&mut self, op: &Op<'_>) {
        const ALONE: u64 = libc::CLONE_NEWPID as u64;
        match *op {
            Op::Clone { flags, cgroup } => {
                self.shares_memory &= flags & ALONE != 0 && flags & CLONE_NEWTIME == 0;
                self.clones = self.clones.or(cgroup.is_none().then_some(flags));
            }
            Op::CloneFrom { .. }
            | Op::JoinPidNamespace { .. }
            | Op::JoinNamespaces { .. }
            | Op::BecomeInit {}
            | Op::CallKeeper {}
            | Op::AwaitStart { .. }
            | Op::AdjustOomScore { .. } => self.shares_memory = false,
            Op::AwaitStdio { .. } => self.waits = true,
            _ => {}
        }
    }
}

const HEADER: usize = 8 + 4 * 4;

impl<'a> Plan<'a> {
    /// Checks `bytes` from end to end.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut input = bytes;
        if split(&mut input, MAGIC.len()) != Some(MAGIC) {
            return Err(Malformed::Magic);
        }
        let mut word = || u32::take(&mut input).ok_or(Malformed::Truncated);
        let (version, keeper_ops, child_ops, keeper_bytes) = (word()?, word()?, word()?, word()?);
        if version != VERSION {
            return Err(Malformed::Version(version));
        }
        let (keeper, child) = input.split_at_checked(keeper_bytes as usize).ok_or(Malformed::Truncated)?;
        let facts = Facts { clones: None, shares_memory: true, waits: false };
        let mut plan = Self { keeper, child, keeper_ops, child_ops, facts };
        for part in [Part::Keeper, Part::Child] {
            plan.check(part)?;
        }
        Ok(plan)
    }

    fn check(&mut self, part: Part) -> Result<(), Malformed> {
        let (mut input, expected) = self.part(part);
        let mut count = 0;
        while !input.is_empty() {
            self.facts.add(&Op::take(&mut input)?);
            count += 1;
        }
        let total = u64::from(self.keeper_ops) + u64::from(self.child_ops);
        if count == expected && total <= MAX_OPS as u64 { Ok(()) } else { Err(Malformed::Truncated) }
    }

    fn part(&self, part: Part) -> (&'a [u8], u32) {
        match part {
            Part::Keeper => (self.keeper, self.keeper_ops),
            Part::Child => (self.child, self.child_ops),
        }
    }

    /// Whether the child may run in the keeper's memory until it calls execve(2). Not if anybody else is in its pid
    /// namespace, who might be allowed to trace it, nor if it goes elsewhere first, stays what it is (as PID 1 of
    /// `--init`), or waits for longer than its keeper may live. What is written to oom_score_adj is for all that share
    /// a memory.
    pub fn shares_memory(&self) -> bool {
        self.facts.shares_memory
    }

    /// The flags of a child that may be cloned while the keeper's steps before `Clone` are made: it shares the keeper's memory, and
    /// is put into no cgroup of version 2, which would have to be there first.
    pub fn clones_ahead(&self) -> Option<u64> {
        self.facts.clones.filter(|_| self.shares_memory())
    }

    /// Whether the container waits for its standard descriptors, made but for those.
    pub fn waits(&self) -> bool {
        self.facts.waits
    }

    /// Whether another command may come with the standard descriptors: it is put where the child sees it.
    pub fn takes_command(&self) -> bool {
        self.shares_memory() && self.waits()
    }

    /// How many operations a part has.
    pub fn len(&self, part: Part) -> usize {
        self.part(part).1 as usize
    }

    /// The operations of a part in order.
    pub fn ops(&self, part: Part) -> impl Iterator<Item = Op<'a>> + use<'a> {
        let mut input = self.part(part).0;
        // `parse` has been through it: an error can't come up here, and would only end the list.
        std::iter::from_fn(move || if input.is_empty() { None } else { Op::take(&mut input).ok() })
    }
}

/// Writes a plan, operation by operation, and hands out its slots.
#[derive(Debug)]
pub struct Builder {
    keeper: Vec<u8>,
    child: Vec<u8>,
    keeper_ops: u32,
    child_ops: u32,
    next_slot: u16,
}

impl Default for Builder {
    fn default() -> Self {
        // Most plans have room in that.
        let [keeper, child] = [4096; 2].map(Vec::with_capacity);
        Self { keeper, child, keeper_ops: 0, child_ops: 0, next_slot: FIRST_OPENED.0 }
    }
}

impl Builder {
    /// A slot that nothing else uses.
    pub fn slot(&mut self) -> Slot {
        let slot = Slot(self.next_slot);
        self.next_slot += 1;
        slot
    }

    /// Appends to the keeper's list.
    pub fn keeper(&mut self, op: Op<'_>) {
        op.put(&mut self.keeper);
        self.keeper_ops += 1;
    }

    /// Appends to the child's list.
    pub fn child(&mut self, op: Op<'_>) {
        op.put(&mut self.child);
        self.child_ops += 1;
    }

    /// Whether a keeper takes it.
    pub fn fits(&self) -> bool {
        self.keeper_ops as usize + self.child_ops as usize <= MAX_OPS && usize::from(self.next_slot) <= SLOTS
    }

    /// The whole plan as bytes.
    pub fn finish(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.keeper.len() + self.child.len());
        bytes.extend_from_slice(MAGIC);
        for word in [VERSION, self.keeper_ops, self.child_ops, self.keeper.len() as u32] {
            word.put(&mut bytes);
        }
        bytes.extend_from_slice(&self.keeper);
        bytes.extend_from_slice(&self.child);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut plan = Builder::default();
        let (parent, out) = (plan.slot(), plan.slot());
        plan.keeper(Op::CgroupCreate { parent, name: c"box", out });
        let lowers = pack_slots(&[parent, out]);
        let names: TextsBuf = [c"a", c""].into_iter().collect();
        plan.keeper(Op::NewOverlay {
            lowers: as_slots(&lowers),
            names: names.as_texts(),
            upper: None,
            changes: c"",
            volatile: true,
            attributes: 4,
            out,
        });
        let words: TextsBuf = [c"a", c"", c"c d"].into_iter().collect();
        plan.child(Op::Exec {
            candidates: words.as_texts(),
            arguments: words.as_texts(),
            environment: TextsBuf::default().as_texts(),
        });
        plan.finish()
    }

    #[test]
    fn what_was_written_is_read_back() {
        let bytes = sample();
        let plan = Plan::parse(&bytes).unwrap();
        assert_eq!((plan.len(Part::Keeper), plan.len(Part::Child)), (2, 1));
        let ops: Vec<_> = plan.ops(Part::Keeper).collect();
        assert_eq!(ops[0], Op::CgroupCreate { parent: Slot(3), name: c"box", out: Slot(4) });
        assert_eq!(
            format!("{:?}", ops[1]),
            concat!(
                r#"NewOverlay { lowers: [3, 4], names: ["a", ""], upper: None, changes: "", volatile: true, "#,
                "attributes: 4, out: Slot(4) }"
            )
        );
        let Some(Op::Exec { arguments, .. }) = plan.ops(Part::Child).next() else { panic!("no exec") };
        assert_eq!(arguments.iter().collect::<Vec<_>>(), [c"a", c"", c"c d"]);
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = sample();
        for length in 0..bytes.len() {
            assert!(Plan::parse(&bytes[..length]).is_err(), "{length} bytes of {}", bytes.len());
        }
    }

    #[test]
    fn a_flipped_bit_never_panics_and_never_leaves_the_table() {
        let bytes = sample();
        for position in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[position / 8] ^= 1 << (position % 8);
            if let Ok(plan) = Plan::parse(&broken) {
                assert_eq!(plan.ops(Part::Keeper).count() + plan.ops(Part::Child).count(), 3);
            }
        }
    }
}
