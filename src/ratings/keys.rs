//! The keys: what signs generation ids, and what hashes users and texts.
//!
//! A generation's tag is the first 80 bits of
//!
//! ```text
//! HMAC-SHA256(HMAC-SHA256(key, "tenantry generation id v1"),
//!             length of the tenant's id (4 bytes, big endian) ‖ tenant's id ‖ ULID (16 bytes, big endian))
//! ```
//!
//! Nobody can try tags without asking a gateway, so 80 bits are enough to make
//! guessing hopeless, and keep the id short. Any gateway with one of the keys
//! knows the generation and its tenant by it, without state.

use std::fmt;
use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tenantry_types::{GenerationId, TenantId};
use ulid::Ulid;

type HmacSha256 = Hmac<Sha256>;

/// Bytes that a key has at least.
pub const SHORTEST_KEY: usize = 16;

/// Signs and verifies generation ids. The first key signs, all of them verify:
/// a new key is put in front, and an old one taken away when its last
/// generation is older than the retention.
#[derive(Clone)]
pub struct GenerationKeys(Vec<HmacSha256>);

/// Hashes end users and texts. Its key is not to be changed: the same user
/// would be another one from then on.
#[derive(Clone)]
pub struct Hasher {
    users: HmacSha256,
    texts: HmacSha256,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("there is no key")]
    None,
    #[error("a key has fewer than {SHORTEST_KEY} bytes")]
    Short,
}

/// Why a generation cannot be rated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("it is not a generation's id")]
    Malformed,
    /// Also another tenant's: the two cannot be told apart.
    #[error("there is no such generation")]
    Unknown,
    #[error("the generation is too old to be rated")]
    Expired,
}

// === impl GenerationKeys ===

impl GenerationKeys {
    pub fn new<K: AsRef<[u8]>>(keys: &[K]) -> Result<Self, KeyError> {
        let keys: Vec<_> =
            keys.iter().map(|key| derived(key.as_ref(), "tenantry generation id v1")).collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(KeyError::None) } else { Ok(Self(keys)) }
    }

    /// The id of a generation of this tenant.
    pub fn issue(&self, tenant: &TenantId, ulid: Ulid) -> GenerationId {
        let mac = tagged(&self.0[0], tenant, ulid).finalize().into_bytes();
        let mut tag = [0; GenerationId::TAG];
        tag.copy_from_slice(&mac[..GenerationId::TAG]);
        GenerationId::signed(ulid, tag)
    }

    /// Whether `text` is the id of a generation of this tenant that is not
    /// older than `retention`. The tag is compared in constant time.
    pub fn verify(
        &self,
        text: &str,
        tenant: &TenantId,
        now: SystemTime,
        retention: Duration,
    ) -> Result<GenerationId, IdError> {
        let id = GenerationId::parse(text).ok_or(IdError::Malformed)?;
        let tag = id.tag().ok_or(IdError::Malformed)?;
        let ours = self.0.iter().any(|key| tagged(key, tenant, id.ulid()).verify_truncated_left(&tag).is_ok());
        if !ours {
            return Err(IdError::Unknown);
        }
        // One from the future is another gateway's, whose clock is ahead.
        match now.duration_since(id.ulid().datetime()) {
            Ok(age) if age > retention => Err(IdError::Expired),
            _ => Ok(id),
        }
    }
}

impl fmt::Debug for GenerationKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GenerationKeys({})", self.0.len())
    }
}

// === impl Hasher ===

impl Hasher {
    pub fn new(key: &[u8]) -> Result<Self, KeyError> {
        Ok(Self { users: derived(key, "tenantry end user v1")?, texts: derived(key, "tenantry text v1")? })
    }

    /// An end user's name as it is stored: 128 bits in hexadecimal digits, other
    /// ones for the same name at another tenant.
    pub fn end_user(&self, tenant: &TenantId, name: &str) -> String {
        hex(&salted(&self.users, tenant, name.as_bytes())[..16])
    }

    /// What stands for a text that is not kept: 256 bits in hexadecimal digits.
    pub fn text(&self, tenant: &TenantId, text: &str) -> String {
        hex(&salted(&self.texts, tenant, text.as_bytes()))
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

fn hmac(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// A key of one purpose.
fn derived(key: &[u8], purpose: &str) -> Result<HmacSha256, KeyError> {
    if key.len() < SHORTEST_KEY {
        return Err(KeyError::Short);
    }
    Ok(hmac(&hmac(key).chain_update(purpose).finalize().into_bytes()))
}

fn tagged(key: &HmacSha256, tenant: &TenantId, ulid: Ulid) -> HmacSha256 {
    let tenant = tenant.as_str();
    key.clone().chain_update((tenant.len() as u32).to_be_bytes()).chain_update(tenant).chain_update(ulid.to_bytes())
}

/// With a salt that is the tenant's.
fn salted(key: &HmacSha256, tenant: &TenantId, text: &[u8]) -> [u8; 32] {
    let salt = key.clone().chain_update(tenant.as_str()).finalize().into_bytes();
    hmac(&salt).chain_update(text).finalize().into_bytes().into()
}

/// An HMAC-SHA256, for signatures.
pub(crate) fn signature(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mac = parts.iter().fold(hmac(key), |mac, part| mac.chain_update(part));
    mac.finalize().into_bytes().into()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
