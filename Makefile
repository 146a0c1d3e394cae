# What to run and in which order; `make` alone lists it. Every path follows CARGO_TARGET_DIR.

SHELL := /bin/bash -eu -o pipefail
.DEFAULT_GOAL := help

# Where everything is built: absolute, because the sample tools are a workspace of their own.
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
export CARGO_TARGET_DIR := $(TARGET)

# Sample tools are built beside the host, never into it.
GUEST := $(TARGET)/guest
# Components, packed with their descriptors: <crate>.wasm.
TOOLS := $(TARGET)/tools
TOOLKEEP := $(TARGET)/debug/toolkeep

GOOD := $(notdir $(patsubst %/,%,$(dir $(wildcard sample-tools/good/*/Cargo.toml))))
# Those with an interface of their own are described by manifests, not by themselves.
TYPED := $(notdir $(patsubst %/wit/,%,$(wildcard sample-tools/good/*/wit/)))
CONFORMING := $(notdir $(patsubst %/,%,$(dir $(wildcard sample-tools/conformance/*/Cargo.toml))))
HOSTILE := $(notdir $(patsubst %/,%,$(dir $(wildcard sample-tools/hostile/*/Cargo.toml))))

CARGO_DENY := ^0.20

# The Python SDK of MCP: the release that speaks the newer era, and one that knows only the older.
MCP_NEW := 2.3.0
MCP_OLD := 1.30.0
MCP_CLIENTS := $(TARGET)/mcp-clients
# Those of TypeScript, the same way, and the Inspector, which wants a newer Node.js than we do.
MCP_NODE := @modelcontextprotocol/client@2.4.0 @modelcontextprotocol/sdk@1.32.2 @modelcontextprotocol/inspector@2.12.0 node@22
# Frameworks that the examples are for.
LANGCHAIN := langchain-mcp-adapters==0.3.2 langchain==1.4.7
OPENAI_AGENTS := openai-agents==0.24.0
# What checks our own Python client; what builds the other one is in its package.json.
PYTHON_CHECKS := mypy==2.4.1 pyright==1.1.414
CLIENTS := $(TARGET)/clients
# The conformance suite of MCP, and the Node.js that it wants.
CONFORMANCE := 0.2.0-alpha.12
CONFORMANCE_NODE := 22
SUITE := $(TARGET)/conformance

# Tools in other languages, each with the toolchain that it pins: requirements.txt, package.json.
LANGUAGES := $(TARGET)/languages
PYTHON_TOOL := sample-tools/python/lines
JS_TOOL := sample-tools/js/lines
C_TOOL := sample-tools/c/lines
# What makes the bindings of C, and what Debian calls the compiler, the library and the runtime.
WIT_BINDGEN := 0.61.1
C_PACKAGES := clang-14 wasi-libc libclang-rt-14-dev-wasm32
# The linker of components, which comes with the target wasm32-wasip2.
RUST_LD = $(shell rustc --print sysroot)/lib/rustlib/$(shell rustc -vV | sed -n 's/^host: //p')/bin

.PHONY: help setup build guests languages collector clients mcp-clients conformance demo test check fmt clippy deny doc tidy hard bench clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 13

setup: ## add the target wasm32-wasip2, look for strace
	@if ! test -d "$$(rustc --print target-libdir --target wasm32-wasip2)"; then \
		echo "setup: adding the target wasm32-wasip2"; \
		rustup target add wasm32-wasip2; \
	fi
	@if ! command -v strace >/dev/null; then \
		if test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
			echo "setup: installing strace, which the crash tests use"; \
			(apt-get install -y -q strace || { apt-get update -q && apt-get install -y -q strace; }) </dev/null; \
		else \
			echo "setup: strace is missing; install it (Debian: apt-get install strace), or the crash tests fail" >&2; \
		fi; \
	fi

build: ## the daemon and command line: target/debug/toolkeep
	cargo build --locked -p toolkeep

guests: build ## the sample tools as components: target/tools/<name>.wasm
	cd sample-tools && CARGO_TARGET_DIR=$(GUEST) cargo build --locked --release --target wasm32-wasip2
	@mkdir -p $(TOOLS)
	@for name in $(GOOD) $(CONFORMING) $(HOSTILE); do \
		cp $(GUEST)/wasm32-wasip2/release/$${name//-/_}.wasm $(TOOLS)/$$name.wasm; \
	done
	@for name in $(filter-out $(TYPED),$(GOOD)) $(CONFORMING); do $(TOOLKEEP) tools pack $(TOOLS)/$$name.wasm; done
	@# Some hostile tools cannot describe themselves: that is their attack. They stay as they were built.
	@for name in $(HOSTILE); do \
		$(TOOLKEEP) tools pack $(TOOLS)/$$name.wasm 2>/dev/null || echo "guests: $$name refuses to be packed"; \
	done

languages: setup build ## sample tools in Python, JavaScript and C: target/tools/lines-python.wasm, lines-js.wasm, lines-c.wasm
	@mkdir -p $(LANGUAGES) $(TOOLS)
	@if ! cmp -s $(PYTHON_TOOL)/requirements.txt $(LANGUAGES)/python/installed.txt; then \
		echo "languages: installing componentize-py"; \
		python3 -m venv --clear $(LANGUAGES)/python && \
			$(LANGUAGES)/python/bin/pip install -q -r $(PYTHON_TOOL)/requirements.txt && \
			cp $(PYTHON_TOOL)/requirements.txt $(LANGUAGES)/python/installed.txt; \
	fi
	@if ! cmp -s $(JS_TOOL)/package.json $(LANGUAGES)/js/installed.json; then \
		echo "languages: installing componentize-js"; \
		mkdir -p $(LANGUAGES)/js && cp $(JS_TOOL)/package.json $(LANGUAGES)/js/ && \
			npm install --prefix $(LANGUAGES)/js --silent --no-audit --no-fund && \
			cp $(JS_TOOL)/package.json $(LANGUAGES)/js/installed.json; \
	fi
	@# Each takes half a minute of a processor, so it is done again only for other sources.
	@sources=$$(cat $(PYTHON_TOOL)/* wit/*.wit | sha256sum); \
	if ! test "$$(cat $(LANGUAGES)/python/built 2>/dev/null)" = "$$sources" -a -f $(TOOLS)/lines-python.wasm; then \
		rm -rf $(LANGUAGES)/new-python && $(TOOLKEEP) new --lang python lines --path $(LANGUAGES)/new-python 2>/dev/null && \
			cd $(LANGUAGES)/new-python && \
			PYTHONDONTWRITEBYTECODE=1 $(LANGUAGES)/python/bin/componentize-py -d wit -w guest componentize tool -o tool.wasm && \
			$(TOOLKEEP) tools pack tool.wasm --descriptors tools.json --to $(TOOLS)/lines-python.wasm && \
			echo "$$sources" > $(LANGUAGES)/python/built; \
	fi
	@sources=$$(cat $(JS_TOOL)/*.* $(JS_TOOL)/wit/*.wit $(JS_TOOL)/wit/deps/*/*.wit wit/*.wit | sha256sum); \
	if ! test "$$(cat $(LANGUAGES)/js/built 2>/dev/null)" = "$$sources" -a -f $(TOOLS)/lines-js.wasm; then \
		rm -rf $(LANGUAGES)/new-js && $(TOOLKEEP) new --lang js lines --path $(LANGUAGES)/new-js 2>/dev/null && \
			cd $(LANGUAGES)/new-js && ln -s ../js/node_modules node_modules && npm run --silent build && \
			$(TOOLKEEP) tools pack tool.wasm --descriptors tools.json --to $(TOOLS)/lines-js.wasm && \
			echo "$$sources" > $(LANGUAGES)/js/built; \
	fi
	@if ! { command -v clang-14 && test -f /usr/include/wasm32-wasi/stdio.h && \
			test -f "$$(clang-14 --target=wasm32-wasi -print-libgcc-file-name)"; } >/dev/null; then \
		if test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
			echo "languages: installing $(C_PACKAGES)"; \
			(apt-get install -y -q $(C_PACKAGES) || { apt-get update -q && apt-get install -y -q $(C_PACKAGES); }) </dev/null; \
		else \
			echo "languages: install $(C_PACKAGES) for the tool in C" >&2; exit 1; \
		fi; \
	fi
	@if ! test "$$($(LANGUAGES)/c/bin/wit-bindgen --version 2>/dev/null)" = "wit-bindgen-cli $(WIT_BINDGEN)"; then \
		echo "languages: installing wit-bindgen $(WIT_BINDGEN)"; \
		CARGO_TARGET_DIR=$(LANGUAGES)/c/target cargo install -q --locked --root $(LANGUAGES)/c --no-default-features --features c \
			wit-bindgen-cli@$(WIT_BINDGEN) && rm -rf $(LANGUAGES)/c/target; \
	fi
	$(LANGUAGES)/c/bin/wit-bindgen c $(C_TOOL)/wit --world tool --out-dir $(LANGUAGES)/c/bindings >/dev/null
	clang-14 --target=wasm32-wasi -mexec-model=reactor -Os -Wall -Wextra -Werror -I$(LANGUAGES)/c/bindings \
		-fuse-ld=$(RUST_LD)/wasm-component-ld -Wl,--wasm-ld-path,$(RUST_LD)/gcc-ld/wasm-ld,--strip-all \
		$(C_TOOL)/lines.c $(LANGUAGES)/c/bindings/tool.c $(LANGUAGES)/c/bindings/tool_component_type.o -o $(TOOLS)/lines-c.wasm

collector: ## a receiver of spans for the tests, built apart with the official types
	cd tests/collector && CARGO_TARGET_DIR=$(TARGET)/collector cargo build --locked

demo: guests ## one call after another, end to end, on a copy of sample-tools/demo
	$(TOOLKEEP) demo --tools $(TOOLS)

clients: ## what builds and checks clients/python and clients/typescript: target/clients
	@mkdir -p $(CLIENTS)/typescript
	@if ! test "$$(cat $(CLIENTS)/python/version 2>/dev/null)" = "$(PYTHON_CHECKS)"; then \
		echo "clients: installing $(PYTHON_CHECKS)"; \
		python3 -m venv --clear $(CLIENTS)/python && $(CLIENTS)/python/bin/pip install -q $(PYTHON_CHECKS) && \
			$(CLIENTS)/python/bin/pyright --version >/dev/null && echo "$(PYTHON_CHECKS)" > $(CLIENTS)/python/version; \
	fi
	@if ! cmp -s clients/typescript/package.json $(CLIENTS)/typescript/installed.json; then \
		echo "clients: installing what builds clients/typescript"; \
		cp clients/typescript/package.json $(CLIENTS)/typescript/ && \
			npm install --prefix $(CLIENTS)/typescript --silent --no-audit --no-fund --ignore-scripts && \
			cp clients/typescript/package.json $(CLIENTS)/typescript/installed.json; \
	fi
	@rm -rf $(CLIENTS)/typescript/dist
	$(CLIENTS)/typescript/node_modules/.bin/tsc -p clients/typescript --outDir $(CLIENTS)/typescript/dist \
		--typeRoots $(CLIENTS)/typescript/node_modules/@types

mcp-clients: ## MCP clients of others, which the tests run: target/mcp-clients
	@for client in new=$(MCP_NEW) old=$(MCP_OLD); do \
		place=$(MCP_CLIENTS)/$${client%%=*}; version=$${client##*=}; \
		if ! test "$$(cat $$place/version 2>/dev/null)" = "$$version"; then \
			echo "mcp-clients: installing the Python SDK $$version"; \
			{ python3 -m venv --clear $$place && $$place/bin/pip install -q mcp==$$version && echo $$version > $$place/version; } \
				|| exit 1; \
		fi; \
	done
	@install() { \
		if ! test "$$(cat $(MCP_CLIENTS)/$$1/version 2>/dev/null)" = "$$2"; then \
			echo "mcp-clients: installing $$2"; \
			python3 -m venv --clear $(MCP_CLIENTS)/$$1 && $(MCP_CLIENTS)/$$1/bin/pip install -q $$2 && \
				echo "$$2" > $(MCP_CLIENTS)/$$1/version; \
		fi; \
	}; \
	install langchain "$(LANGCHAIN)" && install openai "$(OPENAI_AGENTS)"
	@if ! test "$$(cat $(MCP_CLIENTS)/node/version 2>/dev/null)" = "$(MCP_NODE)"; then \
		echo "mcp-clients: installing $(MCP_NODE)"; \
		mkdir -p $(MCP_CLIENTS)/node && npm install --prefix $(MCP_CLIENTS)/node --silent --no-audit --no-fund $(MCP_NODE) && \
			echo "$(MCP_NODE)" > $(MCP_CLIENTS)/node/version; \
	fi

conformance: guests ## the official conformance suite of MCP, both revisions: target/conformance/results
	@mkdir -p $(SUITE)
	@if ! test "$$(cat $(SUITE)/version 2>/dev/null)" = "$(CONFORMANCE)"; then \
		npm install --prefix $(SUITE) --silent --no-audit --no-fund \
			node@$(CONFORMANCE_NODE) @modelcontextprotocol/conformance@$(CONFORMANCE) && echo $(CONFORMANCE) > $(SUITE)/version; \
	fi
	python3 tests/conformance/run.py $(TOOLKEEP) $(TOOLS) $(SUITE) $(SUITE)/results

test: setup build guests languages collector clients mcp-clients conformance ## everything that must pass
	TOOLKEEP_CLIENTS=1 cargo test --locked --workspace
	cd sample-tools && CARGO_TARGET_DIR=$(GUEST) cargo test --locked $(addprefix -p ,$(GOOD) $(CONFORMING))

check: fmt clippy deny doc tidy ## formatting, lints, dependencies, documentation, the repository's rules

fmt: ## formatting
	cargo fmt --all --check
	cd sample-tools && cargo fmt --all --check

clippy: ## lints, all of them errors
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cd sample-tools && CARGO_TARGET_DIR=$(GUEST) cargo clippy --locked --target wasm32-wasip2 -- -D warnings

deny: ## licences, bans and sources of dependencies; advisories where their database can be fetched
	@command -v cargo-deny >/dev/null || cargo install --locked --version '$(CARGO_DENY)' cargo-deny
	cargo deny --locked check bans licenses sources
	cd sample-tools && cargo deny --locked --config ../deny.toml check bans licenses sources
	@if cargo deny fetch db >/dev/null 2>&1; then \
		cargo deny --locked check advisories; \
	else \
		echo "deny: the advisory database cannot be reached; advisories were NOT checked"; \
	fi

doc: ## the documentation of all public items, without warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

tidy: ## the repository's own rules
	cargo test --locked -p toolkeep-tests -- tidy

hard: setup build guests collector ## crashes, faults and attacks at every point: 15 minutes after building
	@# With the features of the whole workspace, as the command builds the tests: nothing is built twice.
	cargo test --locked --workspace --no-run
	$(TARGET)/debug/hard $(PROOFS)

bench: guests ## the promised figures, measured: benches/RESULTS.md
	cd benches/guest && CARGO_TARGET_DIR=$(GUEST) cargo build --locked --release --target wasm32-wasip2
	cp $(GUEST)/wasm32-wasip2/release/reader.wasm $(TOOLS)/reader.wasm
	$(TOOLKEEP) tools pack $(TOOLS)/reader.wasm
	@# Both packages in both commands: the features of what they share are then the same, and nothing is built twice.
	cargo build --locked --release -p toolkeep -p toolkeep-benches
	cargo bench --locked -p toolkeep -p toolkeep-benches --bench 'p*' --bench 'g*'

clean: ## remove what was built
	cargo clean
