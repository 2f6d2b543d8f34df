//! What the tests of this crate share: tars written byte by byte, ground to extract them on, and pictures of trees.
#![allow(dead_code, reason = "each test program uses a part")]

pub mod ground;
pub mod growth;
pub mod mounted;
pub mod picture;
pub mod tars;
