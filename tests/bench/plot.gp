# SPDX-License-Identifier: Apache-2.0
#
# Draws what shmb-bench --json FILE has left in FILE.gp:
#	gnuplot -e "data = 'bench.json.gp'; kind = 'svg'" plot.gp
# kind is svg or png. Three charts: bench-rtt, bench-stream, bench-bandwidth.

load data
if (kind eq 'svg') {
	set terminal svg size 1120,600 dynamic noenhanced font 'sans-serif,15' background '#ffffff'
} else {
	set terminal pngcairo size 1120,600 noenhanced font 'sans-serif,13' background '#ffffff'
}

where = distance eq 'SMT' ? 'two siblings of one core' : \
	distance eq 'L3' ? 'two cores that share a cache' : 'two cores far apart'
set encoding utf8
set grid linecolor '#dddddd' linetype 1
set border 3 linecolor '#444444'
set tics nomirror

# ---- there and back: bars, one panel for each way to wait -----------------------------------------

colour(kind_of_bar) = kind_of_bar == 0 ? 0x9aa5b1 : kind_of_bar == 1 ? 0xd1495b : 0x4a7fb0
unit(ns) = ns < 1000 ? sprintf('%.0f ns', ns) : sprintf('%.1f µs', ns / 1000)

set output 'bench-rtt.' . kind
set multiplot layout 1,3 title '8 bytes there and back, ' . where . ' (median, log scale, less is better)' \
	margins 0.17,0.975,0.08,0.84 spacing 0.17,0
set logscale x 10
set format x ''
set xtics ('100 ns' 100, '10 µs' 10000)
set xrange [50:1500000]
set ytics scale 0 font ',11'
set style fill solid 0.9 noborder
unset key
set grid noytics
draw = "using (50):0:(50):2:(column(0) - 0.36):(column(0) + 0.36):(colour($3)):ytic(1) \
	with boxxyerror linecolor rgb variable, '' using ($2 * 1.15):0:(unit($2)) \
	with labels left font ',11'"
set yrange [7.7:-0.7]
set title 'both poll'
plot $polling @draw
set title 'both wait, one core'
plot $one_core @draw
set title 'both wait, two cores'
plot $two_cores @draw
unset multiplot
reset

# ---- one way: lines over size ----------------------------------------------------------------------

set encoding utf8
set grid linecolor '#dddddd' linetype 1
set border 3 linecolor '#444444'
set tics nomirror

array colours[8] = [0x9aa5b1, 0xd1495b, 0xd1495b, 0xd1495b, 0x1b4f72, 0x4a7fb0, 0x7fb3d5, 0x2a9d8f]
array dashes[8] = [1, 1, 2, 3, 1, 1, 1, 1]
array points[8] = [7, 7, 5, 9, 6, 4, 8, 12]
set logscale xy
set xtics ('8' 8, '56' 56, '248' 248, '1016' 1016, '16 KiB' 16384, '1 MiB' 1048576)
set xrange [6:2000000]
set key outside right center samplen 2.5 spacing 1.3 font ',12'
set xlabel 'bytes in a record'

set output 'bench-stream.' . kind
set title 'one way, ' . where . ': time per record (median, less is better)'
set format y ''
set ytics ('10 ns' 10, '100 ns' 100, '1 µs' 1000, '10 µs' 10000, '100 µs' 1e5, '1 ms' 1e6)
plot for [c = 2:n_contenders + 1] $stream using 1:c with linespoints linewidth 2.5 pointsize 1 \
	linecolor rgb colours[c - 1] dashtype dashes[c - 1] pointtype points[c - 1] title columnheader(c)

set output 'bench-bandwidth.' . kind
set title 'one way, ' . where . ': bandwidth (median, more is better)'
set ytics ('1 MB/s' 0.001, '10 MB/s' 0.01, '100 MB/s' 0.1, '1 GB/s' 1, '10 GB/s' 10, '100 GB/s' 100)
plot for [c = 2:n_contenders + 1] $stream using 1:(column(1) / column(c)) with linespoints \
	linewidth 2.5 pointsize 1 linecolor rgb colours[c - 1] dashtype dashes[c - 1] \
	pointtype points[c - 1] title columnheader(c)
