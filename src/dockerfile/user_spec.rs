//! `user[:group]`, as USER and `--chown` have it, read after expansion.

/// A user or group as it is written: a number, or a name to be looked up in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Id {
    /// Taken as it is.
    Number(u32),
    /// An entry of the image's passwd or group.
    Name(String),
}

/// A user and a group, each of which may be missing. What a missing group means depends:
/// `--chown=55` is group 55 too, `USER 55` is the group that passwd has, or 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSpec {
    /// The part before the colon.
    pub user: Option<Id>,
    /// The part behind the colon.
    pub group: Option<Id>,
}

/// A user or owner that can't be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid user {0:?}")]
pub struct UserSpecError(pub String);

impl UserSpecError {
    /// Returns what it looks like.
    pub fn hint(&self) -> Option<String> {
        Some("write user, user:group or :group, by name or number".to_owned())
    }
}

impl UserSpec {
    /// Reads `[user][:[group]]`.
    pub fn parse(text: &str) -> Result<UserSpec, UserSpecError> {
        let error = || UserSpecError(text.chars().take(100).collect());
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        let id = |part: &str| match part {
            "" => Ok(None),
            part if part.contains(':') || part.chars().any(char::is_whitespace) => Err(error()),
            part if part.bytes().all(|b| b.is_ascii_digit()) => {
                // 2^32-1 is the kernel's "leave it alone".
                let number = part.parse().ok().filter(|n| *n != u32::MAX);
                Ok(Some(Id::Number(number.ok_or_else(error)?)))
            }
            part => Ok(Some(Id::Name(part.to_owned()))),
        };
        Ok(UserSpec {
            user: id(user)?,
            group: id(group)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_names_or_numbers() {
        let name = |n: &str| Some(Id::Name(n.to_owned()));
        let cases = [
            ("55", Some((Some(Id::Number(55)), None))),
            ("bob", Some((name("bob"), None))),
            ("bob:staff", Some((name("bob"), name("staff")))),
            ("0:staff", Some((Some(Id::Number(0)), name("staff")))),
            (":5", Some((None, Some(Id::Number(5))))),
            ("5:", Some((Some(Id::Number(5)), None))),
            (":", Some((None, None))),
            ("a:b:c", None),
            ("4294967295", None),
            ("99999999999", None),
            ("a b", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|(user, group)| UserSpec { user, group });
            assert_eq!(UserSpec::parse(text).ok(), expected, "{text}");
        }
    }
}
