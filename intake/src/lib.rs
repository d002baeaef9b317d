//! What the first hop does with a request, free of I/O: vendor formats, gate, verdicts, receipts.
