//! stub
/// d
pub fn default_mask() -> u64 {
    0xa80425fb
}
