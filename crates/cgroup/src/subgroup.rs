//! A group below a container's, for one of its processes alone: in all trees, or in those of some controllers.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::group::{Group, Unified};

/// Where a process is to be below a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subgroup {
    /// In the trees of these controllers of version 1; in every tree if there are none.
    pub controllers: Vec<String>,
    /// The path from the group.
    pub path: String,
}

impl Group {
    /// The group as it is for a process that goes below it. What is named must exist.
    pub fn below(mut self, subgroups: &[Subgroup]) -> Result<Self> {
        let bases: Vec<PathBuf> = self.v1.iter().map(|directory| directory.path.clone()).collect();
        for Subgroup { controllers, path } in subgroups {
            self.place.below(path)?;
            let path = Path::new(path.trim_matches('/'));
            if controllers.is_empty() {
                if let Some(unified) = &mut self.unified {
                    *unified = Unified::open(there(unified.path.join(path))?)?;
                }
                for directory in &mut self.v1 {
                    directory.path = there(directory.path.join(path))?;
                }
            }
            for controller in controllers {
                let mut trees = self.v1.iter_mut().zip(&bases);
                let Some((tree, base)) = trees.find(|(tree, _)| tree.controllers.contains(controller)) else {
                    let reason = "the container has no group in a tree of this controller";
                    return Err(Error::Value {
                        option: "--cgroup",
                        value: controller.clone(),
                        reason: reason.to_owned(),
                    });
                };
                tree.path = there(base.join(path))?;
            }
        }
        Ok(self)
    }
}

fn there(path: PathBuf) -> Result<PathBuf> {
    if path.is_dir() { Ok(path) } else { Err(Error::Missing { path }) }
}
