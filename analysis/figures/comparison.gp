eval words_below(0.78)
set xrange [x_low:x_high]
set yrange [n + 0.6:0.4]
set xtics x_step offset 0,0.3
set ytics scale 0 offset 0.6,0
set ytics ()
do for [k = 1:n] { set ytics add (names[k] k) }
set grid noytics
if (n_base) {
    set object rectangle from first base - base_error, graph 0 to first base + base_error, graph 1 behind fc rgb '#606060' fs solid 0.25 noborder
    set arrow from first base, graph 0 to first base, graph 1 nohead back lc rgb '#606060' lw 1 dt 2
}
do for [line = 1:|$legend|] { eval $legend[line] }
do for [format in formats] {
    eval terminal(format)
    set output name.'.'.format
    plot for [k = 1:n] data index 'scores' every ::k - 1::k - 1 using 2:1:(1.96 * $3) with xerrorbars pt points[k] ps 0.55 lw 1 lc rgb colors[k]
    unset output
}
