//! Links the core without an allocator.
