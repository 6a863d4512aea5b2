//! Subordinate ids: which ids of the host a user may map into a user namespace
//! (subuid(5), subgid(5)), and the maps made of them (user_namespaces(7)).
//!
//! Pure: the caller reads the files and runs the programs.

use std::fmt;

/// The files and what they are for, as they appear in messages.
const SUBUID: &str = "/etc/subuid";
const SUBGID: &str = "/etc/subgid";

/// How many ids an image may use: 0 to 65535.
const WANTED: u32 = 65_536;

/// Where distributions start to hand out subordinate ids (SUB_UID_MIN of login.defs).
const FIRST_SUBORDINATE: u32 = 100_000;

/// Extents that a map may have: 340 since Linux 4.15, one of them for the caller.
const MAX_RANGES: usize = 339;

/// A range of ids on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdRange {
    /// The first id.
    pub start: u32,
    /// How many there are; at least one, and none beyond the last id (2³² − 2).
    pub count: u32,
}

impl IdRange {
    /// Returns the range without what lies beyond the last id, unless nothing is left.
    fn new(start: u64, count: u64) -> Option<IdRange> {
        // 2³² − 1 is no id: setuid(2) reads it as "no change".
        let count = count.min(u64::from(u32::MAX).checked_sub(start)?);
        (count > 0).then_some(IdRange {
            start: u32::try_from(start).ok()?,
            count: u32::try_from(count).ok()?,
        })
    }

    /// Returns the first id behind the range.
    fn end(self) -> u32 {
        // Holds by construction; hand-made ranges are cut at the top.
        self.start.saturating_add(self.count)
    }

    fn contains(self, id: u32) -> bool {
        (self.start..self.end()).contains(&id)
    }
}

/// Whose ids are meant: those of users or of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdKind {
    /// User ids.
    Uid,
    /// Group ids.
    Gid,
}

impl IdKind {
    fn file(self) -> &'static str {
        match self {
            IdKind::Uid => SUBUID,
            IdKind::Gid => SUBGID,
        }
    }
}

impl fmt::Display for IdKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IdKind::Uid => "uid",
            IdKind::Gid => "gid",
        })
    }
}

/// Why a user's ids can't be mapped.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubidError {
    /// The user has none in at least one of the files.
    #[error("no subordinate ids for user {user}")]
    Missing {
        /// The user's name.
        user: String,
        /// The files that lack an entry.
        files: Vec<&'static str>,
        /// The start of a range that nobody has yet, where there is one.
        free: Option<u32>,
    },
    /// A range holds the caller's own id: a step could get at the caller's files.
    #[error("the subordinate {kind}s from {} to {} contain the {kind} {id} of the user", .range.start, .range.end() - 1)]
    Overlap {
        /// Users or groups.
        kind: IdKind,
        /// The caller's id.
        id: u32,
        /// The range that holds it.
        range: IdRange,
    },
}

impl SubidError {
    /// Returns the remedy to show below the message.
    pub fn hint(&self) -> Option<String> {
        match self {
            SubidError::Missing { user, files, free } => {
                let files = files.join(" and ");
                Some(match free {
                    Some(start) => format!("add \"{user}:{start}:{WANTED}\" to {files}"),
                    None => format!("add \"{user}:START:{WANTED}\" with a free range to {files}"),
                })
            }
            SubidError::Overlap { kind, .. } => Some(format!(
                "choose another range for this user in {}, above all ids of users and groups",
                kind.file()
            )),
        }
    }
}

/// Returns the ranges that the text of /etc/subuid or /etc/subgid gives to a user, who is
/// named there by name or by uid: sorted, and merged where they touch, as newuidmap takes
/// them. What is no entry is passed over, as it does too.
pub fn ranges_for(user: &str, uid: u32, text: &str) -> Vec<IdRange> {
    let uid = uid.to_string();
    let own = entries(text).filter(|(owner, _)| *owner == user || *owner == uid);
    merge(own.map(|(_, range)| range).collect())
}

/// Returns owner and range of each entry.
fn entries(text: &str) -> impl Iterator<Item = (&str, IdRange)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let range = IdRange::new(fields.next()?.parse().ok()?, fields.next()?.parse().ok()?)?;
        let is_entry = !owner.is_empty() && !owner.starts_with('#') && fields.next().is_none();
        is_entry.then_some((owner, range))
    })
}

/// Sorts ranges and joins those that touch or overlap.
fn merge(mut ranges: Vec<IdRange>) -> Vec<IdRange> {
    ranges.sort_unstable();
    let mut merged: Vec<IdRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end() => {
                last.count = last.count.max(range.end() - last.start);
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// Parses what `getsubids USER` prints: `0: USER START COUNT` per line.
fn parse_getsubids(user: &str, output: &str) -> Vec<IdRange> {
    let ranges = output.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        fields.next()?.strip_suffix(':')?;
        fields.next().filter(|owner| *owner == user)?;
        IdRange::new(fields.next()?.parse().ok()?, fields.next()?.parse().ok()?)
    });
    merge(ranges.collect())
}

/// The subordinate ids of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subids {
    /// Ranges of uids.
    pub uids: Vec<IdRange>,
    /// Ranges of gids.
    pub gids: Vec<IdRange>,
}

impl Subids {
    /// Finds the ids of a user in the texts of /etc/subuid and /etc/subgid, and for a file
    /// without an entry through `getsubids`, which asks the name service (LDAP, SSSD).
    ///
    /// `run` gets a program with its arguments and returns what it printed, or `None`
    /// where it failed or is not installed.
    pub fn find(
        user: &str,
        uid: u32,
        subuid: &str,
        subgid: &str,
        mut run: impl FnMut(&[&str]) -> Option<String>,
    ) -> Result<Subids, SubidError> {
        let mut find = |text: &str, command: &[&str]| match ranges_for(user, uid, text) {
            ranges if ranges.is_empty() => run(command)
                .map(|output| parse_getsubids(user, &output))
                .unwrap_or_default(),
            ranges => ranges,
        };
        let uids = find(subuid, &["getsubids", user]);
        let gids = find(subgid, &["getsubids", "-g", user]);
        let mut files = Vec::new();
        if uids.is_empty() {
            files.push(SUBUID);
        }
        if gids.is_empty() {
            files.push(SUBGID);
        }
        if files.is_empty() {
            return Ok(Subids { uids, gids });
        }
        Err(SubidError::Missing {
            user: user.to_owned(),
            files,
            free: free_start(subuid, subgid),
        })
    }
}

/// Returns where a new range fits above all that exist.
fn free_start(subuid: &str, subgid: &str) -> Option<u32> {
    let ranges = entries(subuid).chain(entries(subgid));
    let start = ranges
        .map(|(_, range)| range.end())
        .fold(FIRST_SUBORDINATE, u32::max);
    start.checked_add(WANTED).map(|_| start)
}

/// One line of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMapEntry {
    /// The first id inside of the namespace.
    pub inside: u32,
    /// The id that it stands for in the parent namespace.
    pub outside: u32,
    /// How many ids follow each other on both sides.
    pub count: u32,
}

/// Which ids of a user namespace stand for which of its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMap {
    entries: Vec<IdMapEntry>,
}

impl IdMap {
    /// Returns the map of the builder's namespace: 0 is the caller, and from 1 on follow the
    /// subordinate ids, as many as an image may use or as there are.
    pub fn builder(kind: IdKind, caller: u32, ranges: &[IdRange]) -> Result<IdMap, SubidError> {
        if let Some(range) = ranges.iter().find(|range| range.contains(caller)) {
            return Err(SubidError::Overlap {
                kind,
                id: caller,
                range: *range,
            });
        }
        let mut entries = vec![IdMapEntry {
            inside: 0,
            outside: caller,
            count: 1,
        }];
        let mut mapped = 0;
        // Ranges that the caller put together may overlap, which the kernel refuses.
        for range in merge(ranges.to_vec()).into_iter().take(MAX_RANGES) {
            let count = range.count.min(WANTED - mapped);
            if count > 0 {
                entries.push(IdMapEntry {
                    inside: 1 + mapped,
                    outside: range.start,
                    count,
                });
            }
            mapped += count;
        }
        Ok(IdMap { entries })
    }

    /// Returns the map of a step's namespace below the builder's: 0 is the first subordinate
    /// id, so that root of a step is not the caller. `None` where there are none.
    pub fn step(&self) -> Option<IdMap> {
        let count = self.subordinate();
        (count > 0).then(|| IdMap {
            entries: vec![IdMapEntry {
                inside: 0,
                outside: 1,
                count,
            }],
        })
    }

    /// Returns the lines of the map.
    pub fn entries(&self) -> &[IdMapEntry] {
        &self.entries
    }

    /// Returns how many ids beside 0 are mapped: 65536 unless the user has fewer.
    pub fn subordinate(&self) -> u32 {
        let counts = self.entries.iter().map(|entry| entry.count);
        counts.sum::<u32>().saturating_sub(1)
    }

    /// Returns what an id of the namespace is in its parent.
    pub fn to_host(&self, inside: u32) -> Option<u32> {
        self.entries.iter().find_map(|entry| {
            let offset = inside.checked_sub(entry.inside)?;
            (offset < entry.count).then(|| entry.outside + offset)
        })
    }

    /// Returns what an id of the parent is in the namespace.
    pub fn to_inside(&self, host: u32) -> Option<u32> {
        self.entries.iter().find_map(|entry| {
            let offset = host.checked_sub(entry.outside)?;
            (offset < entry.count).then(|| entry.inside + offset)
        })
    }

    /// Returns the arguments of newuidmap(1) and newgidmap(1) that follow the process id.
    pub fn to_args(&self) -> Vec<String> {
        let numbers = self
            .entries
            .iter()
            .flat_map(|e| [e.inside, e.outside, e.count]);
        numbers.map(|number| number.to_string()).collect()
    }
}

/// Writes the text for /proc/PID/uid_map or gid_map.
impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries
            .iter()
            .try_for_each(|e| writeln!(f, "{} {} {}", e.inside, e.outside, e.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u32, count: u32) -> IdRange {
        IdRange { start, count }
    }

    fn nothing(_: &[&str]) -> Option<String> {
        None
    }

    #[test]
    fn entries_are_found_by_name_and_by_number() {
        let text = "alice:100000:65536\nbob:300000:10\n1001:165536:65536\n10010:5:5\nbobby:7:7\n";
        let expected = [range(165_536, 65_536), range(300_000, 10)];
        assert_eq!(ranges_for("bob", 1001, text), expected);
        assert!(ranges_for("carol", 1002, text).is_empty());
    }

    #[test]
    fn ranges_are_sorted_and_joined_where_they_touch_or_overlap() {
        let text = "bob:500:10\nbob:200:100\nbob:300:50\nbob:340:20\nbob:205:5\n";
        let expected = [range(200, 160), range(500, 10)];
        assert_eq!(ranges_for("bob", 1001, text), expected);
    }

    #[test]
    fn lines_that_are_no_entry_are_passed_over() {
        let text = "# bob:1:1\n\n  \nbob\nbob:x:1\nbob:1:-1\nbob:1:0\nbob:1:1:1\n:1:1\n\
            bob:4294967295:1\nbob:99999999999:1\n  bob:70:7  \r\nbob:80:8";
        let expected = [range(70, 7), range(80, 8)];
        assert_eq!(ranges_for("bob", 1001, text), expected);
        assert!(ranges_for("#", 0, "#:1:1").is_empty());
    }

    #[test]
    fn ranges_end_at_the_last_id() {
        let expected = [range(4_294_967_290, 5)];
        let text = "bob:4294967290:18446744073709551615";
        assert_eq!(ranges_for("bob", 1001, text), expected);
    }

    #[test]
    fn name_service_is_asked_only_for_what_the_files_lack() {
        let mut asked = Vec::new();
        let ids = Subids::find("bob", 1001, "bob:100000:65536", "", |command| {
            asked.push(command.join(" "));
            Some("0: bob 200000 65536\n1: bob 265536 10\nError: other\n".to_owned())
        });
        let ids = ids.unwrap();
        assert_eq!(asked, ["getsubids -g bob"]);
        assert_eq!(ids.uids, [range(100_000, 65_536)]);
        assert_eq!(ids.gids, [range(200_000, 65_546)]);
    }

    #[test]
    fn user_without_ids_gets_the_line_to_add() {
        let error = Subids::find("bob", 1001, "", "", nothing).unwrap_err();
        assert_eq!(error.to_string(), "no subordinate ids for user bob");
        assert_eq!(
            error.hint().unwrap(),
            "add \"bob:100000:65536\" to /etc/subuid and /etc/subgid"
        );
        let taken = "alice:100000:65536\n";
        let both = "bob:50:1\ncarol:165536:65536\n";
        let error = Subids::find("bob", 1001, both, taken, nothing).unwrap_err();
        assert_eq!(
            error.hint().unwrap(),
            "add \"bob:231072:65536\" to /etc/subgid"
        );
        let full = "alice:4294900000:65536\n";
        let error = Subids::find("bob", 1001, full, "", nothing).unwrap_err();
        assert!(error.hint().unwrap().contains("free range"));
    }

    #[test]
    fn builder_map_puts_the_caller_first_and_the_ranges_behind() {
        let ranges = [range(300_000, 100_000), range(100_000, 1000)];
        let map = IdMap::builder(IdKind::Uid, 1000, &ranges).unwrap();
        assert_eq!(
            map.to_string(),
            "0 1000 1\n1 100000 1000\n1001 300000 64536\n"
        );
        assert_eq!(
            map.to_args(),
            [
                "0", "1000", "1", "1", "100000", "1000", "1001", "300000", "64536"
            ]
        );
        assert_eq!(map.subordinate(), 65_536);
        for (inside, outside) in [
            (0, Some(1000)),
            (1, Some(100_000)),
            (1000, Some(100_999)),
            (1001, Some(300_000)),
            (65_536, Some(364_535)),
            (65_537, None),
            (u32::MAX, None),
        ] {
            assert_eq!(map.to_host(inside), outside);
            if let Some(outside) = outside {
                assert_eq!(map.to_inside(outside), Some(inside));
            }
        }
        assert_eq!(map.to_inside(364_536), None);
        assert_eq!(map.to_inside(0), None);
    }

    #[test]
    fn builder_map_takes_what_there_is() {
        let map = IdMap::builder(IdKind::Gid, 1000, &[range(100_000, 10)]).unwrap();
        assert_eq!(map.subordinate(), 10);
        assert_eq!(map.step().unwrap().to_string(), "0 1 10\n");
        let alone = IdMap::builder(IdKind::Gid, 1000, &[]).unwrap();
        assert_eq!(alone.to_string(), "0 1000 1\n");
        assert_eq!(alone.step(), None);
    }

    #[test]
    fn root_of_a_step_is_the_first_subordinate_id() {
        let map = IdMap::builder(IdKind::Uid, 1000, &[range(100_000, 65_536)]).unwrap();
        let step = map.step().unwrap();
        let host = |id| map.to_host(step.to_host(id)?);
        assert_eq!(host(0), Some(100_000));
        assert_eq!(host(65_535), Some(165_535));
        assert_eq!(host(65_536), None);
        assert!((0..=65_536).all(|id| host(id) != Some(1000)));
    }

    #[test]
    fn ranges_that_hold_the_callers_own_id_are_refused() {
        for id in [1000, 1009] {
            let error = IdMap::builder(IdKind::Uid, id, &[range(1000, 10)]).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("the subordinate uids from 1000 to 1009 contain the uid {id} of the user")
            );
            assert!(error.hint().unwrap().contains("/etc/subuid"));
        }
        assert!(IdMap::builder(IdKind::Uid, 1010, &[range(1000, 10)]).is_ok());
        assert!(IdMap::builder(IdKind::Uid, 999, &[range(1000, 10)]).is_ok());
    }

    #[test]
    fn maps_stay_below_the_kernels_limit_of_extents() {
        let ranges: Vec<IdRange> = (0..1000).map(|n| range(100_000 + 2 * n, 1)).collect();
        let map = IdMap::builder(IdKind::Uid, 1000, &ranges).unwrap();
        assert_eq!(map.entries().len(), 340);
        assert_eq!(map.to_host(339), Some(100_000 + 2 * 338));
    }
}
