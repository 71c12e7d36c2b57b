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

/// The id of one generation, `gen_<ulid>`: returned to the client, and what a
/// rating refers to. Sorts by the time it was made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GenerationId(Ulid);

impl GenerationId {
    pub fn new(ulid: Ulid) -> Self {
        Self(ulid)
    }

    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        Ulid::from_string(text.strip_prefix("gen_")?).ok().map(Self)
    }
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0; ulid::ULID_LEN];
        write!(f, "gen_{}", self.0.array_to_str(&mut buffer))
    }
}

impl fmt::Debug for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
