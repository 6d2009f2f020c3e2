eval words_below(0.78)
eval words_left(0.22)
set xrange [x_low:x_high]
set yrange [y_low:y_high]
eval 'set xtics ('.x_ticks.') offset 0,0.3'
set ytics y_step offset 0.6,0
do for [line = 1:|$legend|] { eval $legend[line] }
layers = "for [k = 1:n_slices] data index sprintf('slice %d', k) using 1:($2 * scale) with linespoints lw 1.1 pt points[k] ps 0.35 pi 4 lc rgb colors[k]"
if (n_parabolas) {
    layers = "for [k = 1:n_slices] data index sprintf('slice %d', k) using 1:($3 * scale) with lines lw 1 dt 3 lc rgb colors[k], ".layers
}
do for [format in formats] {
    eval terminal(format)
    set output name.'.'.format
    eval 'plot '.layers
    unset output
}
