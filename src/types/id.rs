//! Names and ids. Each is a type of its own, so that a tenant's name can never
//! be passed where a model's is meant.

use std::fmt;
use std::sync::Arc;

use ulid::Ulid;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name! {
    /// A tenant's id, as the configuration spells it.
    TenantId
}
name! {
    /// A base model's name, as the configuration spells it.
    BaseName
}

/// What identifies an adapter: never its name alone, so that two tenants'
/// adapters of one name, or two revisions of one adapter, cannot be mixed up
/// by any cache that is keyed by this.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct AdapterKey {
    pub tenant: TenantId,
    pub name: Arc<str>,
    pub revision: u32,
    /// SHA-256 of the artifact, in lower-case hexadecimal digits.
    pub digest: Arc<str>,
}

impl fmt::Display for AdapterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = self.digest.get(..12).unwrap_or(&self.digest);
        write!(f, "{}/{}@{}:{short}", self.tenant, self.name, self.revision)
    }
}

/// The id of one generation: returned to the client, and what a rating refers
/// to. Sorts by the time it was made.
///
/// Its text is `gen_<ulid>`, or `gen_<ulid><tag>` where a gateway has signed it
/// for its tenant: 26 and 16 characters of Crockford's base 32, in upper case,
/// that need no escaping in a URL. Each id has one text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GenerationId {
    ulid: Ulid,
    tag: Option<[u8; GenerationId::TAG]>,
}

impl GenerationId {
    /// Bytes of a tag.
    pub const TAG: usize = 10;

    /// One that nobody has signed.
    pub fn new(ulid: Ulid) -> Self {
        Self { ulid, tag: None }
    }

    /// One with the tag that binds it to its tenant.
    pub fn signed(ulid: Ulid, tag: [u8; Self::TAG]) -> Self {
        Self { ulid, tag: Some(tag) }
    }

    pub fn ulid(&self) -> Ulid {
        self.ulid
    }

    pub fn tag(&self) -> Option<[u8; Self::TAG]> {
        self.tag
    }

    /// Reads what `Display` writes, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("gen_").filter(|rest| rest.is_ascii())?;
        let (ulid, tag) = rest.split_at_checked(ulid::ULID_LEN)?;
        let tag = if tag.is_empty() { None } else { Some(tag_of(tag)?) };
        let id = Self { ulid: Ulid::from_string(ulid).ok()?, tag };
        // Lower case, `O` for `0` and the like would be second texts of one id.
        (id.to_string() == text).then_some(id)
    }
}

const BASE_32: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// A tag's characters, of five bits each.
const TAG_LEN: usize = GenerationId::TAG * 8 / 5;

fn tag_of(text: &str) -> Option<[u8; GenerationId::TAG]> {
    if text.len() != TAG_LEN {
        return None;
    }
    let mut bits = 0_u128;
    for character in text.bytes() {
        let value = BASE_32.iter().position(|it| *it == character)?;
        bits = bits << 5 | value as u128;
    }
    let mut tag = [0; GenerationId::TAG];
    tag.copy_from_slice(&bits.to_be_bytes()[16 - GenerationId::TAG..]);
    Some(tag)
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0; ulid::ULID_LEN];
        write!(f, "gen_{}", self.ulid.array_to_str(&mut buffer))?;
        let Some(tag) = self.tag else { return Ok(()) };
        let bits = tag.iter().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
        for place in (0..TAG_LEN).rev() {
            let value = bits >> (place * 5) & 31;
            f.write_str(char::from(BASE_32[value as usize]).encode_utf8(&mut [0; 4]))?;
        }
        Ok(())
    }
}

impl fmt::Debug for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
