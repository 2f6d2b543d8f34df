//! Texts that can be handed to the kernel, and fields that are known but refused.

use std::borrow::Cow;
use std::ffi::CString;
use std::fmt;
use std::ops::Deref;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// A string without NUL, borrowed from the JSON wherever it has no escapes (serde would copy those in lists).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<'a>(Cow<'a, str>);

impl Text<'_> {
    /// As the kernel takes it.
    pub fn to_c_string(&self) -> CString {
        // Deserialization has refused every NUL.
        CString::new(self.as_bytes()).unwrap_or_default()
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

struct TextVisitor;

impl TextVisitor {
    fn check<E: de::Error>(text: Cow<'_, str>) -> Result<Text<'_>, E> {
        if text.as_bytes().contains(&0) { Err(E::custom("contains a NUL")) } else { Ok(Text(text)) }
    }
}

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
        Self::check(Cow::Borrowed(text))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
        Self::check(Cow::Owned(text.to_owned()))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_str(TextVisitor)
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_str(self)
    }
}

/// A field of the specification that is not honoured. Values that ask for nothing (null, false, 0, "", [], {}) pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Refused;

/// What the error says of a field that asks for something.
const NOT_SUPPORTED: &str = "not supported";

struct RefusedVisitor;

fn refuse_unless<E: de::Error>(empty: bool) -> Result<Refused, E> {
    if empty { Ok(Refused) } else { Err(E::custom(NOT_SUPPORTED)) }
}

impl<'de> Visitor<'de> for RefusedVisitor {
    type Value = Refused;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Refused, E> {
        Ok(Refused)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Refused, E> {
        refuse_unless(!value)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Refused, E> {
        refuse_unless(value == 0)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Refused, E> {
        refuse_unless(value == 0)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Refused, E> {
        refuse_unless(value == 0.0)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Refused, E> {
        refuse_unless(value.is_empty())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Refused, A::Error> {
        refuse_unless(list.next_element::<IgnoredAny>()?.is_none())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Refused, A::Error> {
        refuse_unless(map.next_key::<IgnoredAny>()?.is_none())
    }
}

impl<'de> Deserialize<'de> for Refused {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(RefusedVisitor)
    }
}

/// A list that may be null, as Go programs write empty ones.
pub(crate) fn nullable_list<'de, D, T>(input: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<Vec<T>>::deserialize(input).map(Option::unwrap_or_default)
}

/// A JSON object in the order in which it is written; a key that comes twice is an error.
#[derive(Clone, Debug)]
pub struct Map<'a, T>(Vec<(Text<'a>, T)>);

impl<T> Default for Map<'_, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'a, T> Deref for Map<'a, T> {
    type Target = [(Text<'a>, T)];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T: Serialize> Serialize for Map<'_, T> {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

struct MapVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for MapVisitor<T> {
    type Value = Map<'de, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Map::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries: Vec<(Text<'de>, T)> = Vec::new();
        while let Some(entry) = map.next_entry::<Text<'de>, T>()? {
            if entries.iter().any(|(key, _)| *key == entry.0) {
                return Err(de::Error::custom(format_args!("duplicate field `{}`", entry.0)));
            }
            entries.push(entry);
        }
        Ok(Map(entries))
    }
}

impl<'de: 'a, 'a, T: Deserialize<'de>> Deserialize<'de> for Map<'a, T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(MapVisitor(std::marker::PhantomData)).map(|map: Map<'de, T>| map)
    }
}
