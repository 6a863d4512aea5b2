//! POSIX ACLs in the form of the `system.posix_acl_*` attributes: ids inside them are mapped
//! like every other id. See acl(5) and `linux/posix_acl_xattr.h`.

const VERSION: u32 = 2;
const HEADER: usize = 4;
const ENTRY: usize = 8;
const TAG_USER: u16 = 0x02;
const TAG_GROUP: u16 = 0x08;

/// Returns whether an attribute of this name holds an ACL.
pub(super) fn is_acl(name: &[u8]) -> bool {
    name == b"system.posix_acl_access" || name == b"system.posix_acl_default"
}

/// Returns the ACL with every id of a named user or group replaced by `map` of it, or nothing
/// where one has no counterpart or the value is no ACL.
pub(super) fn map_ids(acl: &[u8], map: impl Fn(u32) -> Option<u32>) -> Option<Vec<u8>> {
    let (header, entries) = acl.split_first_chunk::<HEADER>()?;
    if u32::from_le_bytes(*header) != VERSION || !entries.len().is_multiple_of(ENTRY) {
        return None;
    }
    let mut mapped = acl.to_vec();
    for entry in mapped[HEADER..].chunks_exact_mut(ENTRY) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        if tag == TAG_USER || tag == TAG_GROUP {
            let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
            entry[4..].copy_from_slice(&map(id)?.to_le_bytes());
        }
    }
    Some(mapped)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An ACL that gives user `uid` and group `gid` something.
    pub fn sample(uid: u32, gid: u32) -> Vec<u8> {
        let mut acl = VERSION.to_le_bytes().to_vec();
        let unset = u32::MAX;
        for (tag, perm, id) in [
            (0x01u16, 6u16, unset),
            (TAG_USER, 4, uid),
            (0x04, 4, unset),
            (TAG_GROUP, 4, gid),
            (0x10, 4, unset),
            (0x20, 0, unset),
        ] {
            acl.extend(tag.to_le_bytes());
            acl.extend(perm.to_le_bytes());
            acl.extend(id.to_le_bytes());
        }
        acl
    }

    /// SEMANTICS 69
    #[test]
    fn only_named_users_and_groups_are_mapped() {
        assert_eq!(
            map_ids(&sample(5, 6), |id| Some(id + 1)).unwrap(),
            sample(6, 7)
        );
    }

    #[test]
    fn an_id_without_counterpart_or_a_malformed_acl_is_nothing() {
        assert_eq!(
            map_ids(&sample(5, 70000), |id| (id < 100).then_some(id)),
            None
        );
        assert_eq!(map_ids(b"", Some), None);
        assert_eq!(map_ids(b"\x02\0\0\0short", Some), None);
        assert_eq!(map_ids(b"\x01\0\0\0", Some), None);
    }
}
