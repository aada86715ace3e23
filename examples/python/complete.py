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
        lib.text_forward.argtypes = [ctypes.POINTER(Memory), ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int]

        with open(packed, "rb") as file:                # private: ctypes wants a writable mapping, nobody writes to it
            self.file = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        at = ctypes.addressof(ctypes.c_char.from_buffer(self.file))
        if lib.text_check_packed(at, len(self.file)):
            raise SystemExit(f"{packed}: not of this model: make it by heddle pack, for the same spec and target")
        size = self.size
        scratch = size["FORWARD_SCRATCH_BYTES"] + threads * size["FORWARD_THREAD_BYTES"]
        self.scratch = mmap.mmap(-1, scratch + 64)      # whole pages, so aligned
        self.memory = Memory(weights=at + size["FILE_WEIGHTS"], packed=at + size["FILE_PACKED"], scratch_bytes=scratch,
                             scratch=ctypes.addressof(ctypes.c_char.from_buffer(self.scratch)))
        self.threads = lib.text_pool_threads(lib.text_pool_new(threads))
        self.tokens = (ctypes.c_int32 * (size["BATCH"] * size["LENGTH"]))()
        self.logits = (ctypes.c_float * (len(self.tokens) * size["VOCAB"]))()

    def forward(self, ids):
        """Logits for what follows each of the ids: rows of VOCAB floats, one after another."""
        self.tokens[: len(ids)] = ids
        error = self.lib.text_forward(ctypes.byref(self.memory), self.threads, self.tokens, self.logits, 1, len(ids))
        if error:
            raise RuntimeError(self.lib.text_error(error).decode())
        return self.logits[: len(ids) * self.size["VOCAB"]]


def main():
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    model, text, more = Model(*sys.argv[1:3]), sys.argv[3].encode(), int(sys.argv[4]) if len(sys.argv) > 4 else 40
    ids, vocab = list(text), model.size["VOCAB"]
    while more and 0 < len(ids) < model.size["LENGTH"]:
        last = model.forward(ids)[-vocab:]
        ids.append(max(range(vocab), key=last.__getitem__))
        more -= 1
    sys.stdout.write(bytes(ids).decode(errors="replace") + "\n")


if __name__ == "__main__":
    main()
