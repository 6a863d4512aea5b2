//! Users of an image: its passwd and group, read inside its root.

use std::io::Read;

use kiln_runtime::User;

use crate::dockerfile::suggest::closest;
use crate::dockerfile::{Id, UserSpec};
use crate::layer::{LayerError, View};

/// No passwd or group is read beyond this many bytes.
const LIMIT: u64 = 10 << 20;

/// Why a user could not be found.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// A name that the image does not have.
    #[error("no {kind} {name:?} in the image's /etc/{file}")]
    Unknown {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
        /// `passwd` or `group`.
        file: &'static str,
        /// A name there that was perhaps meant.
        near: Option<String>,
    },
    /// Something that is neither a name nor an id.
    #[error("invalid user {0:?}")]
    Invalid(String),
    /// The image's files can't be read.
    #[error("cannot read /etc/{file} of the image: {source}")]
    Unreadable {
        /// `passwd` or `group`.
        file: &'static str,
        /// Why.
        source: LayerError,
    },
}

impl UserError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            UserError::Unknown {
                near: Some(near), ..
            } => Some(format!("did you mean {near:?}?")),
            UserError::Unknown { kind, .. } => Some(format!(
                "create it when the image is built (RUN useradd or adduser, groupadd or addgroup), \
                 or give the {kind} by number"
            )),
            _ => None,
        }
    }
}

/// A user as a step has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its ids.
    pub user: User,
    /// Its home directory, from passwd.
    pub home: Option<String>,
}

/// A line of passwd.
struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// A line of group.
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

fn read(view: &View, file: &'static str) -> Result<String, UserError> {
    let unreadable = |source| UserError::Unreadable { file, source };
    let resolved = view
        .resolve(format!("etc/{file}").as_bytes(), true)
        .map_err(unreadable)?;
    // Only a regular file: a device or a pipe would act on the host.
    let Some(node) = resolved.node.filter(|node| node.stat.is_file()) else {
        return Ok(String::new());
    };
    let opened = view.open_file(&node).map_err(unreadable)?;
    let mut bytes = Vec::new();
    opened
        .take(LIMIT)
        .read_to_end(&mut bytes)
        .map_err(|e| unreadable(LayerError::Read(e)))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn accounts(view: &View) -> Result<Vec<Account>, UserError> {
    let text = read(view, "passwd")?;
    let parse = |line: &str| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?.to_owned();
        let mut fields = fields.skip(1);
        Some(Account {
            name,
            uid: fields.next()?.parse().ok()?,
            gid: fields.next()?.parse().ok()?,
            home: fields.nth(1).unwrap_or_default().to_owned(),
        })
    };
    Ok(text.lines().filter_map(parse).collect())
}

fn groups(view: &View) -> Result<Vec<Group>, UserError> {
    let text = read(view, "group")?;
    let parse = |line: &str| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?.to_owned();
        let gid = fields.nth(1)?.parse().ok()?;
        let members = fields.next().unwrap_or_default().split(',');
        Some(Group {
            name,
            gid,
            members: members
                .filter(|m| !m.is_empty())
                .map(str::to_owned)
                .collect(),
        })
    };
    Ok(text.lines().filter_map(parse).collect())
}

fn unknown<'a>(
    kind: &'static str,
    name: &str,
    file: &'static str,
    names: impl Iterator<Item = &'a str>,
) -> UserError {
    UserError::Unknown {
        kind,
        name: name.to_owned(),
        file,
        near: closest(name, names).map(str::to_owned),
    }
}

fn unknown_user(name: &str, accounts: &[Account]) -> UserError {
    let names = accounts.iter().map(|account| account.name.as_str());
    unknown("user", name, "passwd", names)
}

fn group_id(view: &View, group: &Id) -> Result<u32, UserError> {
    match group {
        Id::Number(number) => Ok(*number),
        Id::Name(name) => {
            let groups = groups(view)?;
            let found = groups.iter().find(|group| group.name == *name);
            found.map(|group| group.gid).ok_or_else(|| {
                let names = groups.iter().map(|group| group.name.as_str());
                unknown("group", name, "group", names)
            })
        }
    }
}

/// Finds the user that `USER` or `--user` names: `user[:group]`, each by name or number.
/// An unknown number has gid 0; a name has its primary and supplementary groups; with an
/// explicit group there is only that. The group of the user is always one of the
/// supplementary ones, else a program could leave it, and with it what files forbid the group.
///
/// # Errors
/// [`UserError::Unknown`] for a name that the image does not have.
pub fn lookup_user(view: &View, text: &str) -> Result<Identity, UserError> {
    let text = if text.is_empty() { "0" } else { text };
    let spec = UserSpec::parse(text).map_err(|_| UserError::Invalid(text.to_owned()))?;
    let accounts = accounts(view)?;
    let wanted = spec.user.unwrap_or(Id::Number(0));
    let account = match &wanted {
        Id::Name(name) => accounts.iter().find(|a| a.name == *name),
        Id::Number(number) => accounts.iter().find(|a| a.uid == *number),
    };
    let uid = match (&wanted, account) {
        (_, Some(account)) => account.uid,
        (Id::Number(number), None) => *number,
        (Id::Name(name), None) => {
            return Err(unknown_user(name, &accounts));
        }
    };
    let gid = match (&spec.group, account) {
        (Some(group), _) => group_id(view, group)?,
        (None, Some(account)) => account.gid,
        (None, None) => 0,
    };
    let mut supplementary = vec![gid];
    if let (None, Some(account)) = (&spec.group, account) {
        let theirs = groups(view)?
            .into_iter()
            .filter(|group| group.gid != account.gid && group.members.contains(&account.name));
        supplementary.extend(theirs.map(|group| group.gid));
    }
    Ok(Identity {
        user: User {
            uid,
            gid,
            groups: supplementary,
        },
        home: account
            .map(|a| a.home.clone())
            .filter(|home| !home.is_empty()),
    })
}

/// Returns HOME of a user: from passwd, else `/`, and `/root` for root.
pub fn home_of(identity: &Identity) -> String {
    match &identity.home {
        Some(home) => home.clone(),
        None if identity.user.uid == 0 => "/root".to_owned(),
        None => "/".to_owned(),
    }
}

/// Finds the owner that `--chown` names: `55` is 55:55, a name its uid and its primary group,
/// an explicit group overrides, and `:` is no owner at all.
///
/// # Errors
/// [`UserError::Unknown`] for a name that the image does not have.
pub fn lookup_chown(view: &View, text: &str) -> Result<Option<(u32, u32)>, UserError> {
    let spec = UserSpec::parse(text).map_err(|_| UserError::Invalid(text.to_owned()))?;
    let (uid, own_gid) = match &spec.user {
        None if spec.group.is_none() => return Ok(None),
        None => (0, 0),
        Some(Id::Number(number)) => (*number, *number),
        Some(Id::Name(name)) => {
            let accounts = accounts(view)?;
            let found = accounts.iter().find(|account| account.name == *name);
            found
                .map(|account| (account.uid, account.gid))
                .ok_or_else(|| unknown_user(name, &accounts))?
        }
    };
    let gid = match &spec.group {
        Some(group) => group_id(view, group)?,
        None => own_gid,
    };
    Ok(Some((uid, gid)))
}

#[cfg(test)]
mod tests {
    use super::lookup_user;
    use crate::layer::View;
    use crate::layer::testing::{TestTar, stack};

    fn ids(view: &View, text: &str) -> (u32, u32, Vec<u32>) {
        let user = lookup_user(view, text).unwrap().user;
        (user.uid, user.gid, user.groups)
    }

    #[test]
    fn group_of_the_user_is_among_the_supplementary_ones() {
        let (_layers, view) = stack(vec![
            TestTar::new()
                .dir("etc")
                .file("etc/passwd", "app:x:1000:1001::/home/app:/bin/sh\n")
                .file(
                    "etc/group",
                    "app:x:1001:app\nextra:x:2000:other,app\nno:x:3:other\n",
                ),
        ]);
        assert_eq!(ids(&view, "app"), (1000, 1001, vec![1001, 2000]));
        assert_eq!(ids(&view, "1000"), (1000, 1001, vec![1001, 2000]));
        assert_eq!(ids(&view, "app:extra"), (1000, 2000, vec![2000]));
        assert_eq!(ids(&view, "4321"), (4321, 0, vec![0]));
        assert_eq!(ids(&view, ""), (0, 0, vec![0]));
    }
}
