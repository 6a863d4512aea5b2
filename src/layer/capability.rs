//! File capabilities: the form with a root id, which the kernel writes within a user
//! namespace, becomes the form without, which images carry. See capabilities(7).

pub(super) const XATTR: &[u8] = b"security.capability";

const REVISION_MASK: u32 = 0xff00_0000;
const REVISION_2: u32 = 0x0200_0000;
const REVISION_3: u32 = 0x0300_0000;
/// The magic word and two pairs of masks; revision 3 adds the root id.
const LENGTH_2: usize = 20;
const LENGTH_3: usize = 24;

/// Returns `value` as revision 2. Anything but a revision 3 value is returned as it is.
pub(super) fn without_root_id(value: Vec<u8>) -> Vec<u8> {
    let Some(magic) = value.first_chunk::<4>().map(|m| u32::from_le_bytes(*m)) else {
        return value;
    };
    if value.len() != LENGTH_3 || magic & REVISION_MASK != REVISION_3 {
        return value;
    }
    let mut two = value;
    two.truncate(LENGTH_2);
    two[..4].copy_from_slice(&(magic & !REVISION_MASK | REVISION_2).to_le_bytes());
    two
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SEMANTICS 69
    #[test]
    fn revision_3_loses_its_root_id_and_keeps_the_effective_flag() {
        let masks = [0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let three = [&[1, 0, 0, 3][..], &masks, &[1, 0, 0, 0]].concat();
        let two = [&[1, 0, 0, 2][..], &masks].concat();
        assert_eq!(without_root_id(three), two);
        assert_eq!(without_root_id(two.clone()), two);
        assert_eq!(without_root_id(b"x".to_vec()), b"x");
    }
}
