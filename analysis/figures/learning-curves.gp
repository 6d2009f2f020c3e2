interval(p) = ceil((x_highs[p] - x_lows[p]) / 6.0) # steps between two points
do for [format in formats] {
    eval terminal(format)
    set output name.'.'.format
    set multiplot
    do for [p = 1:n_panels] {
        unset label
        unset arrow
        unset object
        if (p == 1) { do for [line = 1:|$legend|] { eval $legend[line] } }
        eval place(p)
        eval words_at(p)
        set xrange [x_lows[p]:x_highs[p]]
        set yrange [y_lows[p]:y_highs[p]]
        set xtics x_steps[p] offset 0,0.3
        set ytics y_steps[p] offset 0.6,0
        plot for [k = firsts[p]:lasts[p]] data index sprintf('curve %d', k) using 1:($2 - $3):($2 + $3) with filledcurves lc rgb colors[k] fs transparent solid 0.2 noborder, \
            for [k = firsts[p]:lasts[p]] data index sprintf('curve %d', k) using 1:2 with linespoints lw 1.1 dt dashes[k] pt points[k] ps 0.35 pi interval(p) lc rgb colors[k]
    }
    unset multiplot
    unset output
}
