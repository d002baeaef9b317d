//! Benchmarks of Firsthop beside what people use instead.
