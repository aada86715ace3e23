# make            the compiler, at build/heddle (installs what is missing first)
# make demo       trains a Sparse Transformer on real text for about a minute (DATA=file: on yours)
# make check      every test
# make asan       every test with the address and undefined-behaviour sanitizers, generated code included
# make fuzz       damaged files of every format against their readers, sanitized, SECONDS=60 for each kind
# make bench      this machine beside oneDNN, OpenBLAS, BLIS, PyTorch and ONNX Runtime, as tables and a chart; ROWS="quick products": bench/bench.sh says which
# make golden     accepts new output of text tests
# make tune       times kernels of the models' sizes on this machine into the records that ship (MINUTES=5 for each of bench/tune.sh)
# make install    PREFIX=/usr/local
# make clean, make help

ifeq ($(origin CC),default)
CC = $(shell for v in `seq 40 -1 14`; do command -v clang-$$v && exit; done; command -v clang || command -v gcc || echo cc)
endif
# as many at once as there are processors, where nobody says how many
ifeq ($(filter -j%,$(MAKEFLAGS)),)
MAKEFLAGS += -j$(shell nproc)
endif
PREFIX ?= /usr/local
CFLAGS ?= -O2 -g
WARN = -Wall -Wextra -Wpedantic -Wshadow
HOST = $(CC) -std=c11 -D_GNU_SOURCE= $(CFLAGS) $(WARN) -MMD -MP
LUA_INCLUDE = -I/usr/include/lua5.4
LIBS = -llua5.4 -l:libjansson.a -l:libutf8proc.a -l:libpcre2-8.a -lm -lpthread

COMPILER = base/base \
  graph/graph graph/shape graph/ops graph/gradient graph/interpret graph/print graph/train_step graph/chunk_loss graph/experts graph/positions \
  pattern/pattern pattern/cover pattern/regions pattern/rows pattern/cache \
  spec/sandbox spec/builders spec/pattern_lua spec/pattern_data spec/checkpoint \
  passes/decode passes/simplify passes/fuse passes/lower passes/lower_ops passes/lower_rows passes/lower_decode passes/lower_experts passes/plan passes/recompute passes/keep passes/traffic \
  emit/map emit/kernels emit/product emit/attention emit/attention_rows emit/attention_edges emit/attention_stencil emit/attention_cached emit/calls emit/inspect emit/names emit/header emit/weights_file emit/decode emit/model emit/info \
  tune/records tune/space tune/space_attention tune/measure tune/tune \
  tokenizer/tokens tokenizer/read_json tokenizer/read_files tokenizer/unicode tokenizer/write \
  driver/compile driver/view driver/view_page driver/view_cover driver/view_mask driver/view_reach driver/view_graph driver/view_cost driver/cc driver/target driver/check driver/predict driver/info driver/emit driver/tensor_file driver/import driver/weights driver/pack
CORE = core/pool
# the encoder: in programs that have a tokenizer, and in the compiler, which asks it about the tables it wrote
TOKENIZER = app/tokenizer app/tokenizer_normal app/tokenizer_split app/tokenizer_model
APP = app/main app/app app/variant app/options app/file app/progress app/safetensors app/shards app/weights app/weights_open app/data app/score \
  app/train app/trainer app/checkpoint app/eval app/sample app/continuation app/interactive app/generate app/sampler app/stops app/media app/image_png app/sound_file app/run app/bench app/peak app/pages app/info \
  app/text app/tokenize app/kept app/coder app/attention app/attention_page $(TOKENIZER) app/tokenizer_regex

# what the compiler shares with the programs it makes: predictions rest on the speeds that PROGRAM bench measures, and weights are
# checked when a program is built as it will check them
SHARED = core/pool app/peak app/pages app/app app/file app/progress app/safetensors app/shards app/weights $(TOKENIZER) app/tokenizer_regex

CO = $(COMPILER:%=build/compiler/%.o) $(SHARED:%=build/runtime/%.o)
RO = $(CORE:%=build/runtime/%.o) $(APP:%=build/runtime/%.o)

# the sanitized runtime (heddle build --sanitize) is made by tests and by name; where it is, it is kept up to date
all: build/heddle build/lib/libheddle_app.a $(wildcard build/lib/libheddle_app_asan.a)

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

# what programs are made of beside their kernels: small, where it does not count tokens or numbers
SMALL = main app variant options file progress shards train checkpoint eval run bench info attention attention_page weights_open tokenize text data
$(SMALL:%=build/runtime/app/%.o): SIZE = -Os
build/runtime/app/%.o: runtime/app/%.c | build/.setup
	@mkdir -p $(@D)
	$(HOST) $(SIZE) -fno-asynchronous-unwind-tables -fno-unwind-tables -ffunction-sections -fdata-sections -c -o $@ $<

# the page of the command `attention`, as numbers of C, less what lines begin with: a table of lines would be a third larger
build/attention_html.h: runtime/app/attention.html
	@mkdir -p build
	sed 's/^ *//' $< | od -An -v -tu1 | sed 's/  */,/g; s/^,//; s/$$/,/' > $@

build/runtime/app/attention_page.o build/asan/runtime/app/attention_page.o build/fuzz/runtime/app/attention_page.o: build/attention_html.h

# ---- tests: programs of cmocka; those of compiler/ link the compiler, those of runtime/ the runtime's library ----

# those that take longest first, so that none is left over at the end
COMPILER_TESTS = \
  build_test \
  golden_test \
  decode_test \
  import_test \
  weights_test \
  variants_test \
  recompute_test \
  emit_test \
  cache_test \
  kernels_test \
  facts_test \
  inspect_test \
  random_test \
  view_test \
  stencil_test \
  product_test \
  spec_test \
  attention_test \
  chunk_test \
  tokenizer_test \
  cover_test \
  edges_test \
  pattern_test \
  gradient_test \
  graph_test
RUNTIME_TESTS = \
  test_train \
  test_commands \
  test_sample \
  math_test \
  test_safetensors \
  test_pool
# what these find depends on times: they run alone
TIMED_TESTS = \
  tune_test \
  predict_test

SANITIZERS = -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
SO = $(CO:build/%=build/asan/%)
TESTS = $(COMPILER_TESTS:%=build/tests/compiler/%) $(RUNTIME_TESTS:%=build/tests/runtime/%)
TIMED = $(TIMED_TESTS:%=build/tests/compiler/%)
# tests that compile by themselves find the compiler here; what heddle compiles again and again is kept
TEST_SETTINGS = HD_TEST_CC=$(CC) HEDDLE_CACHE=$(CURDIR)/build/cache HEDDLE_TUNING=off

check: all build/lib/libheddle_app_asan.a $(TESTS) $(TIMED)
	@$(TEST_SETTINGS) tests/run $(TESTS) -- $(TIMED)

# the compiler, the runtime and generated code (heddle --sanitize), with the address and undefined-behaviour sanitizers
asan: all build/heddle_asan build/lib/libheddle_app_asan.a $(TESTS:build/%=build/asan/%) $(TIMED:build/%=build/asan/%)
	@$(TEST_SETTINGS) HEDDLE=build/heddle_asan HEDDLE_SANITIZE=1 ASAN_OPTIONS=detect_leaks=0 tests/run $(TESTS:build/%=build/asan/%) -- $(TIMED:build/%=build/asan/%)

# accepts what passes print now as what they should print; read the diff
golden: all build/tests/compiler/golden_test
	HEDDLE_TUNING=off HEDDLE_ACCEPT=1 build/tests/compiler/golden_test

build/tests/compiler/%: build/tests/compiler/%.o build/tests/compiler/tool.o $(CO)
	$(CC) $(LDFLAGS) -o $@ $^ -lcmocka -ldl $(LIBS)

build/tests/runtime/%: build/tests/runtime/%.o build/tests/runtime/support.o build/tests/runtime/tiny_model.o build/lib/libheddle_app.a
	$(CC) $(LDFLAGS) -o $@ $^ -lcmocka -l:libjansson.a -l:libpng16.a -l:libz.a -lsndfile -lm -lpthread

build/asan/tests/compiler/%: build/asan/tests/compiler/%.o build/asan/tests/compiler/tool.o $(SO)
	$(CC) $(LDFLAGS) $(SANITIZERS) -o $@ $^ -lcmocka -ldl $(LIBS)

build/asan/tests/runtime/%: build/asan/tests/runtime/%.o build/asan/tests/runtime/support.o build/asan/tests/runtime/tiny_model.o build/lib/libheddle_app_asan.a
	$(CC) $(LDFLAGS) $(SANITIZERS) -o $@ $^ -lcmocka -l:libjansson.a -l:libpng16.a -l:libz.a -lsndfile -lm -lpthread

# damaged files of each kind, read under the sanitizers: SECONDS of each; KINDS="json config": only those. libFuzzer is clang's
FUZZED = $(filter build/compiler/spec/% build/compiler/graph/% build/compiler/pattern/% build/compiler/tokenizer/%,$(CO)) \
  build/tests/runtime/tiny_model.o build/tests/fuzz/fuzz.o build/tests/fuzz/memory.o build/tests/fuzz/base_fuzz.o
FUZZ_LINK = malloc calloc realloc free exit _exit fork setrlimit prctl pipe2 lua_sethook hd_file_open hd_file_close hd_app_text \
  $(addprefix hd_unicode_,bert form lower accents nmt pairs marks)
comma = ,
fuzz: build/fuzz/heddle_fuzz
	@tests/fuzz/run $(or $(SECONDS),60) $(KINDS)

build/fuzz/heddle_fuzz: $(FUZZED:build/%=build/fuzz/%) build/fuzz/runtime.a
	$(CC) $(LDFLAGS) $(SANITIZERS) -fsanitize=fuzzer $(FUZZ_LINK:%=-Wl$(comma)--wrap=%) -o $@ $^ $(LIBS) -l:libpng16.a -l:libz.a -lsndfile

build/fuzz/runtime.a: $(filter-out %/main.o,$(RO:build/%=build/fuzz/%))
	rm -f $@ && ar rcs $@ $^

build/fuzz/%.o: %.c | build/.setup
	@mkdir -p $(@D)
	$(HOST) $(SANITIZERS) $(FUZZ_COVERAGE) $(LUA_INCLUDE) -c -o $@ $<
FUZZ_COVERAGE = -fsanitize=fuzzer-no-link
build/fuzz/compiler/tokenizer/unicode.o: FUZZ_COVERAGE =        # tables of Unicode, whatever the file holds, and most of the time

build/heddle_asan: $(SO) build/asan/compiler/driver/main.o
	$(CC) $(LDFLAGS) $(SANITIZERS) -o $@ $^ $(LIBS)

build/lib/libheddle_app_asan.a: $(RO:build/%=build/asan/%)
	@mkdir -p build/lib
	rm -f $@ && ar rcs $@ $^

build/asan/%.o: %.c | build/.setup
	@mkdir -p $(@D)
	$(HOST) $(SANITIZERS) $(LUA_INCLUDE) -c -o $@ $<

.SECONDARY:

demo: all
	@bench/demo.sh "$(DATA)" "$(or $(MINUTES),1)"

bench: all
	@CC="$(CC)" bench/bench.sh $(ROWS)

tune: all
	@bench/tune.sh $(MINUTES)

# PREFIX/bin/heddle and, under PREFIX/share/heddle, what it finds beside itself
SHARE = $(DESTDIR)$(PREFIX)/share/heddle
install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(SHARE)/templates/package $(SHARE)/lua $(SHARE)/runtime/core $(SHARE)/runtime/app $(SHARE)/runtime/tune $(SHARE)/tune $(SHARE)/lib $(SHARE)/models/hf
	install build/heddle $(DESTDIR)$(PREFIX)/bin/heddle
	install -m 644 templates/*.tmpl $(SHARE)/templates
	install -m 644 templates/package/* $(SHARE)/templates/package
	install -m 644 compiler/lua/*.lua compiler/emit/template.lua $(SHARE)/lua
	install -m 644 runtime/core/*.[ch] $(SHARE)/runtime/core
	install -m 644 runtime/app/hd_model.h runtime/app/hd_traffic.h runtime/app/tokenizer*.[ch] runtime/app/sampler.[ch] $(SHARE)/runtime/app
	install -m 644 runtime/tune/*.[ch] $(SHARE)/runtime/tune
	install -m 644 compiler/tune/shipped.txt $(SHARE)/tune
	install -m 644 build/lib/libheddle_app.a $(SHARE)/lib
	install -m 644 models/*.lua $(SHARE)/models
	install -m 644 models/hf/*.lua $(SHARE)/models/hf

clean:
	rm -rf build

help:
	@sed -n '1,/^$$/s/^# //p' Makefile

.PHONY: all check asan fuzz golden demo bench tune install clean help
-include $(shell find build -name '*.d' 2>/dev/null)
