# make            the compiler, at build/heddle (installs what is missing first)
# make demo       trains a Sparse Transformer on real text for about a minute (DATA=file: on yours)
# make check      every test
# make help       the rest

ifeq ($(origin CC),default)
CC = $(shell for v in `seq 40 -1 14`; do command -v clang-$$v && exit; done; command -v clang || command -v gcc || echo cc)
endif
PREFIX ?= /usr/local
CFLAGS ?= -O2 -g
WARN = -Wall -Wextra -Wpedantic -Wshadow
HOST = $(CC) -std=c11 -D_GNU_SOURCE $(CFLAGS) $(WARN) -MMD -MP
LUA_INCLUDE = -I/usr/include/lua5.4
LIBS = -llua5.4 -l:libjansson.a -lm -lpthread

COMPILER = base/base \
  graph/graph graph/shape graph/ops graph/gradient graph/interpret graph/print graph/train_step \
  pattern/pattern pattern/cover \
  spec/sandbox spec/builders spec/pattern_lua spec/causal \
  passes/simplify passes/fuse passes/lower passes/lower_ops passes/plan \
  emit/map emit/kernels emit/product emit/attention emit/model \
  driver/compile driver/cc driver/target driver/check driver/info driver/tensor_file
CORE = core/pool
APP = app/main app/app app/options app/file app/progress app/safetensors app/weights app/data app/score \
  app/train app/trainer app/checkpoint app/eval app/sample app/run app/bench app/peak app/info

CO = $(COMPILER:%=build/compiler/%.o)
RO = $(CORE:%=build/runtime/%.o) $(APP:%=build/runtime/%.o)

all: build/heddle build/lib/libheddle_app.a

build/.setup: setup
	@./setup
	@mkdir -p build && touch $@

build/heddle: $(CO) build/compiler/driver/main.o
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

build/lib/libheddle_app.a: $(RO)
	@mkdir -p build/lib
	rm -f $@ && ar rcs $@ $^

build/%.o: %.c | build/.setup
	@mkdir -p $(@D)
	$(HOST) $(LUA_INCLUDE) -c -o $@ $<

build/runtime/app/%.o: runtime/app/%.c | build/.setup
	@mkdir -p $(@D)
	$(HOST) -ffunction-sections -fdata-sections -c -o $@ $<

demo: all
	@bench/demo.sh "$(DATA)" "$(or $(MINUTES),1)"

clean:
	rm -rf build

help:
	@sed -n '1,/^$$/s/^# //p' Makefile

.PHONY: all demo clean help
-include $(shell find build -name '*.d' 2>/dev/null)
