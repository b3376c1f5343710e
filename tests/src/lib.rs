//! What the rings that need a kernel share.

pub mod fixtures;
pub mod testrun;
