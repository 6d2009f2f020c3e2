x_label = 'learning rate'
eval words_below(0.78)
eval words_left(0.22)
set logscale x
set xrange [x_low:x_high]
set yrange [y_low:y_high]
eval 'set xtics ('.x_ticks.') offset 0,0.3'
set ytics y_step offset 0.6,0
if (n_base) {
    set object rectangle from graph 0, first base - base_error to graph 1, first base + base_error behind fc rgb '#606060' fs solid 0.25 noborder
    set arrow from graph 0, first base to graph 1, first base nohead back lc rgb '#606060' lw 1 dt 2
}
# Curves stand a little beside each other, so that their error bars can be told apart.
aside(k) = (x_high / x_low)**(0.008 * (k - (n_series + 1) / 2.0))
do for [line = 1:|$legend|] { eval $legend[line] }
layers = ''
if (several_seeds) {
    layers = "for [k = 1:n_series] data index sprintf('runs %d', k) using ($1 * aside(k)):2 with points pt 7 ps 0.25 lc rgb colors[k] + 0x80000000, "
}
layers = layers."for [k = 1:n_series] data index sprintf('means %d', k) using ($1 * aside(k)):2 with lines lw 1.2 dt dashes[k] lc rgb colors[k], "
layers = layers."for [k = 1:n_series] data index sprintf('means %d', k) using ($1 * aside(k)):2:3 with yerrorbars pt points[k] ps 0.45 lw 0.8 lc rgb colors[k]"
if (n_failed) {
    layers = layers.", data index 'failed' using 1:(y_low + (y_high - y_low) * 0.02) with points pt 2 ps 0.5 lc rgb 'black'"
}
do for [format in formats] {
    eval terminal(format)
    set output name.'.'.format
    eval 'plot '.layers
    unset output
}
