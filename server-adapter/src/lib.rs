//! Firsthop's server: verify, deduplicate, journal, deliver. A router to mount and the binary firsthop.
