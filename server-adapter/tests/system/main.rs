//! The server as a whole: a real process, real files, real connections.

mod bad_input;
mod common;
mod exactly_once;
mod life;
