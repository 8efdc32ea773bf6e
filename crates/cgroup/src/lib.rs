//! stub
#![allow(missing_docs)]
use std::os::fd::BorrowedFd;
#[derive(Debug)]
pub struct Group;
#[derive(Debug)]
pub struct Hierarchy;
#[derive(Debug, Default)]
pub struct Limits;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct Error;
impl Error {
    pub fn advice(&self) -> Option<String> {
        None
    }
}
impl Hierarchy {
    pub fn detect() -> Result<Self, Error> {
        Ok(Self)
    }
}
impl Group {
    pub fn create(_: &Hierarchy, _: Option<&str>, _: &str, _: &Limits) -> Result<Option<Group>, Error> {
        Ok(None)
    }
    pub fn open(_: &Hierarchy, _: Option<&str>, _: &str) -> Result<Option<Group>, Error> {
        Ok(None)
    }
    pub fn v2_directory(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    pub fn join(&self, _: u32) -> Result<(), Error> {
        Ok(())
    }
    pub fn kill(&self) -> Result<(), Error> {
        Ok(())
    }
    pub fn remove(&self) -> Result<(), Error> {
        Ok(())
    }
    pub fn oom_killed(&self) -> Result<bool, Error> {
        Ok(false)
    }
}
