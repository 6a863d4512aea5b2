//! Where the sources of COPY and ADD come from.

pub mod ignore;
pub mod pattern;
