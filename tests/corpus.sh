#!/usr/bin/env bash
# scripts/corpus on packages made here, found where it keeps those that it fetched; nothing is installed and the archive
# cannot be reached. Usage: corpus.sh SCRIPT
set -euo pipefail
script=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
fail() {
    echo "FAILED: $1" >&2
    exit 1
}

mkdir bin
printf '#!/bin/sh\nexit 1\n' | tee bin/apt-get >bin/dpkg-query
chmod +x bin/*
export PATH="$folder/bin:$PATH" XDG_CACHE_HOME="$folder/cache"
packages=cache/dilmodeli/packages

# a dictionary: two entries of 120 bytes, at 0 and 121, lengths in base 64 (A = 0, B = 1, ... B4 = 120, B5 = 121)
dictd=$packages/dict-jargon/usr/share/dictd
mkdir -p $dictd
{
    printf 'first\n  '
    printf '%0112d\n' 0
    printf 'second\n  '
    printf '%0111d\n' 0
} | gzip >$dictd/jargon.dict.dz
printf '00-database-info\tA\tA\nfirst\tA\tB4\nsecond\tB5\tB4\n' >$dictd/jargon.index

# manual pages, POD, HTML
mkdir -p $packages/manpages/usr/share/man/man7 $packages/manpages-dev
gzip >$packages/manpages/usr/share/man/man7/x.7.gz <<'PAGE'
.de Vb
.ft CW
..
.TH x 7 2023-01-01 "A manual"
.SH NAME
x \- a page with \fBbold\fP and
.BR open (2)
.\" a remark
.PP
.nf
int  f(void);    \(aqquoted\(aq \en
.fi
The end of a paragraph which is long enough to be filled to lines of no more than so many columns.
PAGE
mkdir -p $packages/perl-doc/usr/share/perl/5/pod $packages/postgresql-doc-15/usr/share/doc/postgresql-doc-15/html
cat >$packages/perl-doc/usr/share/perl/5/pod/perlx.pod <<'PAGE'
=head1 NAME

perlx - B<bold I<both>>, C<< $a->{b} >>, L<the op|perlop/x>, E<lt>tagE<gt>X<index>

=begin html

<p>not this</p>

=end html

  verbatim   text

More of the page, which is long enough to count as one.

=cut
PAGE
cat >$packages/postgresql-doc-15/usr/share/doc/postgresql-doc-15/html/a.html <<'PAGE'
<html><head><title>not this</title></head><body><div class="navheader"><table><tr><td>nor this</td></tr></table></div>
<p>A &lt;b&gt; &amp; &#x41;&#66;
   joined.</p><pre class="x">
kept   <em>as</em>
  it is
</pre><p>A last paragraph of some length, so that the document is long enough to count.</p></body></html>
PAGE

"$script" out >log || { cat log; fail "it ran"; }
grep -q 'gcide: skipped' log || fail "a line for what cannot be had"
cat out/*/*.txt >all
expect() { grep -qxF -- "$1" all || { cat all; fail "expected the line: $1"; }; }
[ "$(grep -cxF '<|endoftext|>' all)" = 4 ] || fail "four documents, each ended by its line"
expect 'first'
expect 'second'
expect 'x(7)'
expect 'x - a page with bold and open(2)'
expect "    int  f(void);    'quoted' \\n"
# shellcheck disable=SC2016
expect 'perlx - bold both, $a->{b}, the op, <tag>'
expect '  verbatim   text'
expect 'A <b> & AB joined.'
expect '    kept   as'
expect '      it is'
if grep -qE 'not this|nor this|remark|ft CW' all; then
    fail "marks and navigation are gone"
fi
awk 'length > 78 && !/^  0/ { exit 1 }' all || fail "paragraphs are filled"

mv all before
"$script" out >/dev/null
cat out/*/*.txt | cmp - before || fail "the same again"
"$script" --packages --small | grep -q . || fail "packages for the demo"
"$script" 2>/dev/null && fail "a folder is needed"
exit 0
