//! One file for each verb: its arguments, and the thin way from them to the engine.

pub mod anatomy;
pub mod archive;
pub mod commit;
pub mod copy;
pub mod diff;
pub mod export;
pub mod history;
pub mod image;
pub mod images;
pub mod import;
pub mod inspect;
pub mod kill;
pub mod load;
pub mod login;
pub mod logout;
pub mod ps;
pub mod pull;
pub mod push;
pub mod rm;
pub mod rmi;
pub mod run;
pub mod save;
pub mod stop;
pub mod system;
pub mod tag;
