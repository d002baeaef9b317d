//! WebAssembly bindings of Firsthop for web pages.
