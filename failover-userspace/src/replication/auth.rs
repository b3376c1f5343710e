//! Who may talk: the key, the handshake, and the tags on frames. HMAC-SHA-256 (RFC 2104) throughout.
//!
//! ```text
//! dialer                                          acceptor
//!   hello = magic, version, nonce    ------------>
//!                     <------------  reply = nonce, MAC(key, "accept" + transcript)
//!   frames, under MAC(key, "flows" + transcript)      ->
//!                     <-  frames, under MAC(key, "acknowledgements" + transcript)
//! ```
//!
//! The transcript is the hello, the acceptor's nonce and both IP addresses. Each side proves that it has the key by a
//! MAC over the other's fresh nonce: the acceptor with its reply, the dialer with its first frame. So neither half of a
//! recorded session is of use again. The addresses are in it because all nodes share one key: without them a station
//! between two nodes could lead a node's dialer to that node's own acceptor, which would take the node's own flows for
//! the peer's. A tag also covers the number of its frame, so no frame can be repeated, left out or moved.
//!
//! Deliberately absent: secrecy. Who is on the link sees the flows' segments anyway. And I/O.

use std::fmt;

use failover_common::address::Address;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of a nonce.
pub const NONCE: usize = 32;
/// Bytes of a dialer's first message.
pub const HELLO: usize = MAGIC.len() + NONCE;
/// Bytes of an acceptor's answer.
pub const REPLY: usize = NONCE + MAC;
/// Bytes of the tag on a frame: half a MAC, RFC 2104 5.
pub const TAG: usize = 16;

/// The shortest key, in bytes: as long as the MAC (RFC 2104 3).
const KEY_MIN: usize = 32;
const MAC: usize = 32;
const BLOCK: usize = 64;
/// The last byte is the version of everything that follows.
const MAGIC: [u8; 8] = *b"failovr\x01";

/// The secret that all nodes share.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// The key with these bytes.
    ///
    /// # Errors
    /// When there are fewer than 32.
    pub fn new(secret: &[u8]) -> anyhow::Result<Self> {
        anyhow::ensure!(
            secret.len() >= KEY_MIN,
            "the key has {} bytes, at least {KEY_MIN} are needed: make one with `openssl rand -base64 48`",
            secret.len()
        );
        Ok(Self(Hmac::new_from_slice(secret)?))
    }

    /// The acceptor's answer to a hello.
    pub fn reply(&self, hello: &[u8; HELLO], nonce: &[u8; NONCE], ends: Ends) -> [u8; REPLY] {
        let proof = self.derive("accept", hello, nonce, ends);
        let mut reply = [0; REPLY];
        reply[..NONCE].copy_from_slice(nonce);
        reply[NONCE..].copy_from_slice(&proof.finalize().into_bytes());
        reply
    }

    /// Whether the answer comes from somebody with the key.
    pub fn is_reply(&self, hello: &[u8; HELLO], reply: &[u8; REPLY], ends: Ends) -> bool {
        let (nonce, proof) = reply.split_at(NONCE);
        // Compares in constant time.
        self.derive("accept", hello, nonce, ends).verify_slice(proof).is_ok()
    }

    /// The keys of the session that both messages began.
    pub fn session(&self, hello: &[u8; HELLO], reply: &[u8; REPLY], ends: Ends) -> Session {
        let nonce = &reply[..NONCE];
        let seal = |label| Seal::new(self.derive(label, hello, nonce, ends));
        Session { flows: seal("flows"), acknowledgements: seal("acknowledgements") }
    }

    /// A MAC over a label and the transcript. All that follows the label has a fixed length, and no label begins with
    /// another, so no two uses can have one input.
    fn derive(&self, label: &str, hello: &[u8; HELLO], nonce: &[u8], ends: Ends) -> Hmac<Sha256> {
        let parts = [label.as_bytes(), hello, nonce, &ends.dialer.bytes, &ends.acceptor.bytes];
        parts.into_iter().fold(self.0.clone(), Mac::chain_update)
    }
}

/// The two IP addresses of a connection, as both ends see them.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Who dialled.
    pub dialer: Address,
    /// Who was dialled.
    pub acceptor: Address,
}

/// The keys of one connection.
pub struct Session {
    /// From dialer to acceptor.
    pub flows: Seal,
    /// From acceptor to dialer.
    pub acknowledgements: Seal,
}

/// The key of one direction, and how many frames it was used for.
pub struct Seal {
    key: Hmac<Sha256>,
    frames: u64,
}

impl Seal {
    fn new(secret: Hmac<Sha256>) -> Self {
        // RFC 2104 2: a short key is filled up with zeros.
        let mut block = [0; BLOCK];
        block[..MAC].copy_from_slice(&secret.finalize().into_bytes());
        Self { key: Hmac::new(&block.into()), frames: 0 }
    }

    /// The next frame's tag. `frame` is all of it before the tag.
    pub fn tag(&mut self, frame: &[u8]) -> [u8; TAG] {
        let mac = self.next(frame).finalize().into_bytes();
        std::array::from_fn(|at| mac[at])
    }

    /// Whether this is the next frame's tag.
    pub fn is_tag(&mut self, frame: &[u8], tag: &[u8; TAG]) -> bool {
        self.next(frame).verify_truncated_left(tag).is_ok()
    }

    fn next(&mut self, frame: &[u8]) -> Hmac<Sha256> {
        let mac = self.key.clone().chain_update(self.frames.to_be_bytes()).chain_update(frame);
        // 2^64 frames don't happen.
        self.frames = self.frames.wrapping_add(1);
        mac
    }
}

/// A dialer's first message.
pub fn hello(nonce: &[u8; NONCE]) -> [u8; HELLO] {
    let mut hello = [0; HELLO];
    hello[..MAGIC.len()].copy_from_slice(&MAGIC);
    hello[MAGIC.len()..].copy_from_slice(nonce);
    hello
}

/// Whether this begins a session of this protocol's version.
pub fn is_hello(hello: &[u8; HELLO]) -> bool {
    hello.starts_with(&MAGIC)
}

/// Bytes that nobody can guess.
///
/// # Errors
/// When the kernel has none to give.
pub fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    // getrandom(2) always fills up to 256 bytes.
    const { assert!(N <= 256) };
    let mut bytes = [0; N];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_long_enough_and_never_printed() {
        assert!(Key::new(&[7; 31]).unwrap_err().to_string().contains("31 bytes, at least 32"));
        assert_eq!(format!("{:?}", Key::new(b"0123456789abcdef0123456789abcdef").unwrap()), "Key(..)");
    }

    #[test]
    fn two_random_values_differ() {
        assert_ne!(random::<NONCE>().unwrap(), random::<NONCE>().unwrap());
    }
}
