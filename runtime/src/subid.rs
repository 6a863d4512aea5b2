//! stub
/// e
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct SubidError;
impl SubidError {
    /// h
    pub fn hint(&self) -> Option<String> {
        None
    }
}
/// m
pub struct IdMap(u32, u32, u32);
impl IdMap {
    /// a
    pub fn to_args(&self) -> Vec<String> {
        vec![
            "0".into(),
            self.0.to_string(),
            "1".into(),
            "1".into(),
            self.1.to_string(),
            self.2.to_string(),
        ]
    }
    /// l
    pub fn len(&self) -> u32 {
        self.2 + 1
    }
}
/// b
pub fn builder_maps() -> Result<(IdMap, IdMap), SubidError> {
    let id = nix::unistd::getuid().as_raw();
    Ok((IdMap(id, 165536, 65536), IdMap(id, 165536, 65536)))
}
