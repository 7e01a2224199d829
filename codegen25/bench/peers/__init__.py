"""Programs that run in another engine's own environment: `codegen25.bench.peer` starts them and speaks JSON lines.

They import nothing of codegen25, which is not installed there.
"""
