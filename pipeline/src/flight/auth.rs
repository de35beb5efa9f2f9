//! The token that a client shows, compared in a time that says nothing about it.

use std::fmt;

use http::header::{AUTHORIZATION, HeaderMap};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tonic::Status;

use crate::{Error, Result};

/// Bytes of the shortest token: 16 random ones in hexadecimal.
const SHORTEST: usize = 32;

/// The hash of a token: what is compared has one length, whatever is shown.
pub(super) struct Token([u8; 32]);

impl Token {
    /// # Errors
    /// When the token is so short that it could be guessed.
    pub(super) fn new(token: &str) -> Result<Self> {
        if token.len() < SHORTEST {
            return Err(Error::config("token", format!("at least {SHORTEST} characters, as of `openssl rand -hex 32`"), token.len()));
        }
        Ok(Self(Sha256::digest(token).into()))
    }

    /// # Errors
    /// When the request shows no token, or another.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Status> {
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let shown = shown.ok_or_else(|| Status::unauthenticated("wanted the header `authorization: Bearer TOKEN`"))?;
        let shown: [u8; 32] = Sha256::digest(shown).into();
        if bool::from(shown.ct_eq(&self.0)) { Ok(()) } else { Err(Status::unauthenticated("another token is wanted")) }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}
