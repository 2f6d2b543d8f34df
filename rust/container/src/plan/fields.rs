//! How the fields of an operation lie in the plan's bytes: numbers little-endian, and what is longer behind its length.

use std::ffi::CStr;

use super::SLOTS;

/// Index into the descriptor table of an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

/// Standard input, output and error of the container's process.
pub const STDIN: Slot = Slot(0);
/// See [`STDIN`].
pub const STDOUT: Slot = Slot(1);
/// See [`STDIN`].
pub const STDERR: Slot = Slot(2);
/// First slot of the descriptors that were opened while the plan was compiled.
pub const FIRST_OPENED: Slot = Slot(3);

/// Several NUL-terminated texts, one after the other, in the plan's own bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Texts<'a> {
    count: u32,
    bytes: &'a [u8],
}

impl<'a> Texts<'a> {
    /// How many texts there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The texts in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a CStr> + use<'a> {
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            let text = CStr::from_bytes_until_nul(rest).ok()?;
            rest = &rest[text.count_bytes() + 1..];
            Some(text)
        })
    }
}

impl std::fmt::Debug for Texts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Texts while a plan is being written: joined once, borrowed as [`Texts`].
#[derive(Clone, Debug, Default)]
pub struct TextsBuf {
    count: u32,
    bytes: Vec<u8>,
}

impl TextsBuf {
    /// Adds one text.
    pub fn push(&mut self, text: &CStr) {
        self.count += 1;
        self.bytes.extend_from_slice(text.to_bytes_with_nul());
    }

    /// The texts as an operation takes them.
    pub fn as_texts(&self) -> Texts<'_> {
        Texts { count: self.count, bytes: &self.bytes }
    }
}

impl<'a> FromIterator<&'a CStr> for TextsBuf {
    fn from_iter<I: IntoIterator<Item = &'a CStr>>(texts: I) -> Self {
        let mut buffer = Self::default();
        for text in texts {
            buffer.push(text);
        }
        buffer
    }
}

/// Slots of several descriptors.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Slots<'a>(&'a [u8]);

impl<'a> Slots<'a> {
    /// The slots in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Slot> + use<'a> {
        self.0.chunks_exact(2).map(|pair| Slot(u16::from_le_bytes([pair[0], pair[1]])))
    }
}

impl std::fmt::Debug for Slots<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().map(|slot| slot.0)).finish()
    }
}

/// Encodes slots for [`Op::Overlay`].
pub fn pack_slots(slots: &[Slot]) -> Vec<u8> {
    slots.iter().flat_map(|slot| slot.0.to_le_bytes()).collect()
}

/// Borrows packed slots.
pub fn as_slots(packed: &[u8]) -> Slots<'_> {
    Slots(packed)
}

/// How a field lies in the plan's bytes.
pub(crate) trait Field<'a>: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn take(input: &mut &'a [u8]) -> Option<Self>;
}

pub(crate) fn split<'a>(input: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, rest) = input.split_at_checked(count)?;
    *input = rest;
    Some(head)
}

macro_rules! number_fields {
    ($($kind:ty),*) => {$(
        impl<'a> Field<'a> for $kind {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn take(input: &mut &'a [u8]) -> Option<Self> {
                Some(Self::from_le_bytes(split(input, size_of::<Self>())?.try_into().ok()?))
            }
        }
    )*};
}
number_fields!(u16, u32, i32, u64, i64);

impl<'a> Field<'a> for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(input: &mut &'a [u8]) -> Option<Self> {
        match split(input, 1)?[0] {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl<'a> Field<'a> for Slot {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn take(input: &mut &'a [u8]) -> Option<Self> {
        u16::take(input).filter(|&slot| usize::from(slot) < SLOTS).map(Slot)
    }
}

impl<'a> Field<'a> for Option<Slot> {
    fn put(&self, out: &mut Vec<u8>) {
        self.map_or(u16::MAX, |slot| slot.0).put(out);
    }
    fn take(input: &mut &'a [u8]) -> Option<Self> {
        match u16::take(input)? {
            u16::MAX => Some(None),
            slot if usize::from(slot) < SLOTS => Some(Some(Slot(slot))),
            _ => None,
        }
    }
}

impl<'a> Field<'a> for &'a [u8] {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        out.extend_from_slice(self);
    }
    fn take(input: &mut &'a [u8]) -> Option<Self> {
        let length = u32::take(input)?;
        split(input, length as usize)
    }
}

impl<'a> Field<'a> for &'a CStr {
    fn put(&self, out: &mut Vec<u8>) {
        self.to_bytes_with_nul().put(out);
    }
    fn take(input: &mut &'a [u8]) -> Option<Self> {
        CStr::from_bytes_with_nul(<&[u8]>::take(input)?).ok()
    }
}

impl<'a> Field<'a> for Texts<'a> {
    fn put(&self, out: &mut Vec<u8>) {
        self.count.put(out);
        self.bytes.put(out);
    }
    fn take(input: &mut &'a [u8]) -> Option<Self> {
        let count = u32::take(input)?;
        let bytes = <&[u8]>::take(input)?;
        let ends = bytes.last().is_none_or(|&last| last == 0);
        let texts = bytes.iter().filter(|&&byte| byte == 0).count();
        (ends && texts == count as usize).then_some(Self { count, bytes })
    }
}

impl<'a> Field<'a> for Slots<'a> {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn take(input: &mut &'a [u8]) -> Option<Self> {
        let packed = <&[u8]>::take(input)?;
        let slots = Self(packed);
        let fits = packed.len() % 2 == 0 && slots.iter().all(|slot| usize::from(slot.0) < SLOTS);
        fits.then_some(slots)
    }
}
