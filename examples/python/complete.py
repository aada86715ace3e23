#!/usr/bin/env python3
"""Completes a text of bytes with a model called `text` (models/text.lua), through the shared library of its emitted sources.

    complete.py text/libtext.so text.packed "Once upon" [BYTES]

Python's own ctypes and mmap are all it needs. The sizes come from text.h beside the library.
"""
import ctypes, mmap, os, re, sys



class Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("weights", "state", "scratch", "packed", "cache")]
    _fields_ += [("scratch_bytes", ctypes.c_size_t), ("cancel", ctypes.POINTER(ctypes.c_int))]


class Model:
    def __init__(self, library, packed, threads=os.cpu_count()):
        with open(os.path.join(os.path.dirname(library), "text.h")) as header:
            number = r"(?:enum \{ |#define )TEXT_(\w+)[ =(]+(?:\(size_t\))?(\d+)"
            self.size = {name: int(value) for name, value in re.findall(number, header.read())}
        lib = self.lib = ctypes.CDLL(os.path.abspath(library))
        lib.text_error.restype = ctypes.c_char_p
        lib.text_pool_new.restype = lib.text_pool_threads.restype = ctypes.c_void_p
        lib.text_pool_threads.argtypes = [ctypes.c_void_p]
        lib.text_check_packed.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        for name, more in ("forward", [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int]), \
                          ("prefill", [ctypes.c_int, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]), ("step", [ctypes.c_void_p, ctypes.c_void_p]):
            getattr(lib, "text_" + name).argtypes = [ctypes.POINTER(Memory), ctypes.c_void_p] + more

        with open(packed, "rb") as file:                # private: ctypes wants a writable mapping, nobody writes to it
            self.file = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        at = ctypes.addressof(ctypes.c_char.from_buffer(self.file))
        if lib.text_check_packed(at, len(self.file)):
            raise SystemExit(f"{packed}: not of this model: make it by heddle pack, for the same spec and target")
        size = self.size
        scratch = max(size[entry + "_SCRATCH_BYTES"] + threads * size[entry + "_THREAD_BYTES"] for entry in ("FORWARD", "PREFILL", "STEP"))
        self.blocks = [mmap.mmap(-1, bytes) for bytes in (scratch, size["CACHE_BYTES"])]       # whole pages, so aligned
        scratch_at, cache_at = [ctypes.addressof(ctypes.c_char.from_buffer(block)) for block in self.blocks]
        self.memory = Memory(weights=at + size["FILE_WEIGHTS"], packed=at + size["FILE_PACKED"], scratch=scratch_at, scratch_bytes=scratch, cache=cache_at)
        self.threads = lib.text_pool_threads(lib.text_pool_new(threads))
        self.check(lib.text_start(ctypes.byref(self.memory)))

    def check(self, error):
        if error:
            raise RuntimeError(self.lib.text_error(error).decode())

    def forward(self, ids):
        """Logits for what follows each of the ids: rows of VOCAB floats, one after another."""
        tokens = (ctypes.c_int32 * (self.size["BATCH"] * self.size["LENGTH"]))(*ids)
        logits = (ctypes.c_float * (len(tokens) * self.size["VOCAB"]))()
        self.check(self.lib.text_forward(ctypes.byref(self.memory), self.threads, tokens, logits, 1, len(ids)))
        return logits[: len(ids) * self.size["VOCAB"]]

    def read(self, ids):
        """Continues the stream by these ids; logits for what follows."""
        tokens, logits = (ctypes.c_int32 * len(ids))(*ids), (ctypes.c_float * self.size["VOCAB"])()
        if len(ids) == 1:
            self.check(self.lib.text_step(ctypes.byref(self.memory), self.threads, tokens, logits))
        else:
            self.check(self.lib.text_prefill(ctypes.byref(self.memory), self.threads, 0, tokens, len(ids), logits))
        return logits[:]


def main():
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    model, text, more = Model(*sys.argv[1:3]), sys.argv[3].encode(), int(sys.argv[4]) if len(sys.argv) > 4 else 40
    ids = list(text)
    most = min(len(ids) + more, model.size["POSITIONS"] or len(ids) + more)
    logits = model.read(ids)
    while len(ids) < most:
        ids.append(max(range(len(logits)), key=logits.__getitem__))
        logits = model.read(ids[-1:]) if len(ids) < most else None
    sys.stdout.write(bytes(ids).decode(errors="replace") + "\n")


if __name__ == "__main__":
    main()
