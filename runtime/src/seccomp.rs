//! stub
/// e
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct SeccompError;
/// p
pub struct Program(Vec<libc::sock_filter>);
impl Program {
    /// x
    pub fn into_instructions(self) -> Vec<libc::sock_filter> {
        self.0
    }
}
