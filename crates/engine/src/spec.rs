//! stub
#![allow(missing_docs)]
use std::path::PathBuf;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct Error;
impl Error {
    pub fn advice(&self) -> Option<String> {
        None
    }
}
#[derive(Debug, Default)]
pub struct Spec {
    pub name: Option<String>,
    pub image: Option<String>,
    pub root_directory: Option<PathBuf>,
    pub platform: Option<image::Platform>,
    pub cid_file: Option<PathBuf>,
    pub terminal: bool,
    pub interactive: bool,
    pub remove: bool,
    pub labels: Vec<(String, String)>,
    pub command: Vec<String>,
    pub init: bool,
    pub user: Option<String>,
    pub extra: Vec<String>,
}
