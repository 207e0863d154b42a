//! Logos as receivers want them: SVG Tiny PS (draft-svg-tiny-ps-abrotman-12), a small part of SVG without scripts, animation,
//! raster images and anything that would be fetched.
//!
//! [`check()`] tells what of a logo does not conform; [`fix()`] makes what can be made right without changing the picture.

mod check;
mod css;
mod fix;
mod geometry;
mod markup;
mod rules;
mod value;
mod write;

pub use check::check;
pub use fix::{Fixed, Wishes, fix};
pub use markup::text;

/// The size that receivers take, in octets: 32 KiB.
pub const LARGEST_LOGO: usize = 32_768;

/// The size that is looked at, in octets; what an editor saves is larger than what comes of it.
pub const LARGEST_DRAWING: usize = 1 << 20;
