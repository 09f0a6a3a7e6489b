#!/bin/sh
# Makes an archive with the program, its manual and its completions, that runs on other machines.
#
#   scripts/release.sh [gnu|musl] [x86_64|aarch64]      default: gnu, the architecture of this machine
#
# gnu:  for glibc 2.17 and newer (any distribution since 2014), with CUDA.
# musl: one static file for any Linux, without CUDA, since a static program cannot load a driver. Needs
#       rustup target add x86_64-unknown-linux-musl
#
# Both need cargo-zigbuild, which compiles C for other machines (TLS has some) and links for old glibcs:
#       pip install cargo-zigbuild ziglang
#
# The archive and its SHA-256 are written to target/archives. Where the program can run here, it is tried first.
set -eu
cd "$(dirname "$0")/.."

kind=${1:-gnu}
here=$(uname -m)
machine=${2:-$here}
oldest=2.17
target=$machine-unknown-linux-$kind
# Paths of whoever builds are of no use in the messages of panics.
export RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$PWD=qft --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"

case $kind in
gnu) cargo zigbuild --locked -p qft-train --profile dist --target "$target.$oldest" ;;
musl) cargo zigbuild --locked -p qft-train --profile dist --target "$target" --no-default-features ;;
*)
	echo "release: $kind is neither gnu nor musl" >&2
	exit 2
	;;
esac

program=${CARGO_TARGET_DIR:-target}/$target/dist/qft
if [ "$kind" = gnu ]; then
	needs=$(objdump -T "$program" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1)
	newest=$(printf '%s\n' "GLIBC_$oldest" "$needs" | sort -V | tail -n 1)
	[ "$newest" = "GLIBC_$oldest" ] || {
		echo "release: the program needs $needs, and not more than GLIBC_$oldest was asked for" >&2
		exit 1
	}
fi

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name=qft-$version-$target
folder=target/archives/$name
rm -rf "$folder"
mkdir -p "$folder/completions" "$folder/man/man1"
cp "$program" README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE "$folder/"
if [ "$machine" = "$here" ]; then
	"$program" --version
	"$program" plan --model llama-2-7b --json >/dev/null
	"$program" eval --model examples/stories260k --questions crates/qft-testing/data/questions
	for shell in bash zsh fish powershell elvish; do
		"$program" completions $shell >"$folder/completions/qft.$shell"
	done
	"$program" man --out "$folder/man/man1"
fi
# The same files give the same archive.
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@${SOURCE_DATE_EPOCH:-0}" -C target/archives -cf - "$name" |
	gzip -9n >"target/archives/$name.tar.gz"
(cd target/archives && sha256sum "$name.tar.gz" | tee "$name.tar.gz.sha256")
ls -l "$program" "target/archives/$name.tar.gz"
